"""Label table: one CSV file with a line per image, in the standard columns."""

import difflib
import logging
import posixpath
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pneumo.common.text import count_noun, escape_line
from pneumo.data.option_style import COMMAND, OptionStyle
from pneumo.data.spreadsheet import Spreadsheet, read_spreadsheet
from pneumo.data.table_presets import PRESETS, TablePreset, fold_name
from pneumo.errors import ConfigError, DataError

_log = logging.getLogger(__name__)
REQUIRED = ("file", "label")
STANDARD = (*REQUIRED, "patient", "site", "split")
_DISAGREEMENT = "readers disagree"
_SHOWN = 3  # examples in a message
_MAX_COLUMNS = 30  # listed in a message


@dataclass(frozen=True)
class LabelTable:
    """Rows of a label table."""

    path: Path
    columns: Mapping[str, tuple[str, ...]]  # all columns, values stripped; the standard ones have the names `STANDARD`
    lines: tuple[int, ...]  # line of the file at which each row starts
    preset: str | None = None  # published layout
    suffixes: tuple[str, ...] = ()  # of the files, if the column file contains IDs without suffix
    skipped: tuple[tuple[str, str], ...] = ()  # file and reason of each image that the preset leaves out

    def values(self, name: str) -> tuple[str, ...]:
        """Return a column; an empty string for every row if it is absent."""
        return self.columns.get(name, ("",) * len(self.lines))

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Names of the columns that are not standard, such as age, in the order of the file."""
        return tuple(name for name in self.columns if name not in STANDARD)


def read_label_table(
    path: Path, preset: str | None = None, columns: Mapping[str, str] = {}, style: OptionStyle = COMMAND
) -> LabelTable:
    """Read a CSV file with a line per image.

    The columns `file` and `label` are required, `patient`, `site` and `split` are optional, and all others are kept.
    Names of these five columns may be written in upper case.

    Args:
        path: CSV file in any encoding and with any separator that spreadsheets write, see `read_spreadsheet`.
        preset: Published layout, one of `PRESETS`; case is ignored. Its findings become the labels NORMAL and
            PNEUMONIA. Of its other columns, patient, age, sex and view are kept as far as the table has them.
        columns: Names in the file by standard name, such as `{"file": "Image Index"}`. With a preset, these columns
            are added; `file` and `label` cannot be renamed then.
        style: Notation of options in errors.

    Raises:
        ConfigError: The preset is unknown, or a renamed column does not exist.
        DataError: `read_spreadsheet` rejects the file, a column is missing or occurs twice, a file or label is empty,
            or a file is listed twice.
    """
    given, preset = preset, None if preset is None else str(preset).casefold()
    if preset is not None and preset not in PRESETS:
        known = ", ".join(PRESETS)
        raise ConfigError(f"{style.preset.format(given)} is unknown: it must be one of {known}. Use one of these.")
    sheet = read_spreadsheet(path)
    _check_header(path, sheet.header)
    renamed = _rename(path, sheet, columns, style)
    if preset is None:
        table = LabelTable(path, _standardize(path, sheet, renamed, style), sheet.lines)
    elif clash := [name for name in REQUIRED if name in columns]:
        raise ConfigError(
            f"{style.column.format(clash[0], columns[clash[0]])} cannot be combined with "
            f"{style.preset.format(preset)}, which defines this column. Omit one of them."
        )
    else:
        table = _apply_preset(path, sheet, renamed, preset)
    _check_cells(table)
    _check_duplicates(table)
    return table


def _check_header(path: Path, header: Sequence[str]) -> None:
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise DataError(
            f"{path} has {Counter(header)[twice[0]]} columns named {twice[0]!r}: each column needs its own name. "
            "Rename or delete one."
        )
    for name in STANDARD:
        if len(same := [column for column in header if column.casefold() == name]) > 1 and name not in same:
            raise DataError(
                f"{path} has the columns {' and '.join(same)}, which both mean {name}: rename or delete one."
            )


def _rename(path: Path, sheet: Spreadsheet, columns: Mapping[str, str], style: OptionStyle) -> dict[str, int]:
    """Return the index of the column in the file for each renamed column."""
    indices = {}
    for name, source in columns.items():
        found = [i for i, column in enumerate(sheet.header) if column == source.strip()]
        found = found or [i for i, column in enumerate(sheet.header) if column.casefold() == source.strip().casefold()]
        if not found:
            raise ConfigError(
                f"{style.column.format(name, source)} names a column that does not exist in "
                f"{path}{_suggest(source, sheet.header)}. Its columns are {_list_columns(sheet.header)}: use one of "
                "them."
            )
        indices[name] = found[0]
    return indices


def _standardize(
    path: Path, sheet: Spreadsheet, renamed: Mapping[str, int], style: OptionStyle
) -> dict[str, tuple[str, ...]]:
    names: dict[str, int] = {}
    for i, column in enumerate(sheet.header):
        standard = column.casefold() if column.casefold() in STANDARD and column.casefold() not in sheet.header else ""
        if standard or i not in renamed.values():
            names.setdefault(standard or column, i)
    names |= renamed
    if missing := [name for name in REQUIRED if name not in names]:
        raise _missing_columns(path, sheet, missing, style)
    by_column = list(zip(*sheet.rows, strict=True))
    return {name: by_column[i] for name, i in names.items()}


def _missing_columns(path: Path, sheet: Spreadsheet, missing: Sequence[str], style: OptionStyle) -> DataError:
    fitting = [name for name, preset in PRESETS.items() if not _lacking(sheet.header, preset)]
    if fitting:
        name = fitting[0]
        fix = f"It looks like {PRESETS[name].table}: use {style.preset.format(name)}."
    elif len(sheet.header) == 1:
        fix = "Separate its columns by commas, semicolons or tabs."
    else:
        fix = f"Rename it, or use {style.column.format(missing[0], 'COLUMN')}."
    names = " and no column ".join(f"{name}{_suggest(name, sheet.header)}" for name in missing)
    return DataError(f"{path} has no column {names}; its columns are {_list_columns(sheet.header)}. {fix}")


def _list_columns(header: Sequence[str]) -> str:
    listed = ", ".join(escape_line(name) for name in header[:_MAX_COLUMNS])
    return listed + (", ..." if len(header) > _MAX_COLUMNS else "")


def _suggest(name: str, header: Sequence[str]) -> str:
    folded = {column.casefold(): column for column in header}
    similar = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f" (is it {escape_line(folded[similar[0]])}?)" if similar else ""


def _lacking(header: Sequence[str], preset: TablePreset) -> list[str]:
    """List the columns of a preset that a table lacks."""
    present = set(map(fold_name, header))
    return [
        " or ".join(names)
        for names in ((preset.file,), *preset.needed)
        if not any(fold_name(name) in present for name in names)
    ]


def _apply_preset(path: Path, sheet: Spreadsheet, added: Mapping[str, int], name: str) -> LabelTable:
    preset = PRESETS[name]
    if lacking := _lacking(sheet.header, preset):
        raise DataError(
            f"{path} has no column {' and no column '.join(lacking)}, but the preset expects {preset.table}; its "
            f"columns are {_list_columns(sheet.header)}. Use that table, or name the columns instead of the preset."
        )
    folded = list(map(fold_name, sheet.header))
    if preset.caution is not None and preset.caution[0] not in folded:
        _log.warning("%s: %s.", path, preset.caution[1])
    images: dict[object, list[int]] = defaultdict(list)  # indices of the rows by image, or of each row alone
    for i, row in enumerate(sheet.rows):
        images[row[folded.index(fold_name(preset.file))] if preset.several_rows else i].append(i)
    names = ("file", "label", *preset.fields, *(key for key in added if key not in preset.fields))
    kept: list[tuple[str, ...]] = []
    lines: list[int] = []
    skipped: list[tuple[str, str]] = []
    for indices in images.values():
        cells = [dict(zip(folded, sheet.rows[i], strict=True)) for i in indices]
        file = cells[0][fold_name(preset.file)]
        label, reason = _majority([preset.classify(row) for row in cells])
        if not label:
            skipped.append((file, reason))
            continue
        first = sheet.rows[indices[0]]
        values = {key: read(cells[0]) for key, read in preset.fields.items()}
        values |= {key: first[i] for key, i in added.items()}
        kept.append((file, label, *(values[key] for key in names[2:])))
        lines.append(sheet.lines[indices[0]])
    if not kept:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in Counter(r for _, r in skipped).items())
        raise DataError(f"{path} has no image that is NORMAL or PNEUMONIA ({reasons}). Use another table.")
    columns = dict(zip(names, zip(*kept, strict=True), strict=True))
    return LabelTable(path, columns, tuple(lines), name, preset.suffixes, tuple(skipped))


def _majority(votes: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Return the label, or the reason without label, of more than half of the rows of an image."""
    vote, count = Counter(votes).most_common(1)[0]
    return vote if 2 * count > len(votes) else ("", _DISAGREEMENT)


def _check_cells(table: LabelTable) -> None:
    for name in REQUIRED:
        empty = [line for line, value in zip(table.lines, table.values(name), strict=True) if not value]
        if empty:
            raise DataError(
                f"{table.path} has {count_noun(len(empty), 'row')} without a {name} "
                f"({describe_lines(empty)}): each row needs one. Fill in the cells, or delete these rows."
            )


def describe_lines(lines: Sequence[int]) -> str:
    """Return the first line numbers as text, such as `lines 3, 7, 9, ...`."""
    listed = ", ".join(str(line) for line in lines[:_SHOWN])
    return f"{'line' if len(lines) == 1 else 'lines'} {listed}" + (", ..." if len(lines) > _SHOWN else "")


def _check_duplicates(table: LabelTable) -> None:
    rows: dict[str, list[int]] = defaultdict(list)
    for i, file in enumerate(table.values("file")):
        rows[posixpath.normpath(file.replace("\\", "/"))].append(i)
    repeated = {file: indices for file, indices in rows.items() if len(indices) > 1}
    if not repeated:
        return
    labels = table.values("label")
    conflicting = [file for file, indices in repeated.items() if len({labels[i] for i in indices}) > 1]
    file = (conflicting or [*repeated])[0]
    where = describe_lines([table.lines[i] for i in repeated[file]])
    fix = "keep the one with the correct label" if conflicting else "delete the others"
    state = f"with different labels in {count_noun(len(conflicting), 'case')}" if conflicting else "with the same label"
    raise DataError(
        f"{table.path} lists {count_noun(len(repeated), 'file')} more than once, {state}: "
        f"{escape_line(file)} is in {where}. Each image needs one row: {fix}."
    )
