"""Labelled images of class folders, of a train/val/test tree or of a label table."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pneumo.common.files import escape_path
from pneumo.common.text import count_noun, escape_line
from pneumo.data.folder_tree import SPLITS
from pneumo.data.image_tree import UNSPLIT, read_tree
from pneumo.data.index import file_path, relative_path
from pneumo.data.label_table import LabelTable, describe_lines, read_label_table
from pneumo.data.option_style import COMMAND, OptionStyle
from pneumo.data.table_files import locate_files
from pneumo.errors import ConfigError, DataError

_SELECTION = "list its images in a table with the columns file and label"
ALL = "all"  # as a split: all images
_CELLS = {  # splits by their spelling in a column, in lower case
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
SPLIT_NAMES = {**_CELLS, ALL: ALL}  # of options
_LISTED = 20  # labels in a message
NOT_FOUND, NO_SPLIT = "file not found", "no split"  # reasons of `LabelledSet.skipped`


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image file with its label."""

    file: Path  # path on the disk
    name: str  # path relative to the root, as escaped text with forward slashes
    label: str  # class name
    patient: str  # empty if unknown
    site: str  # empty if unknown
    split: str  # train, val, test or empty
    extra: tuple[str, ...] = ()  # values of `LabelledSet.extra_columns`


@dataclass(frozen=True)
class LabelledSet:
    """Images of one site or data set."""

    name: str
    images: tuple[LabelledImage, ...]
    extra_columns: tuple[str, ...]  # names of the other columns of a table, such as age
    skipped: tuple[tuple[str, str], ...]  # name and reason of each entry that is not used


def read_labelled(
    data: Path,
    *,
    labels: Path | None = None,
    preset: str | None = None,
    columns: Mapping[str, str] = {},
    mapping: Mapping[str, str] = {},
    split: str = "test",
    allow_missing: bool = False,
    style: OptionStyle = COMMAND,
) -> LabelledSet:
    """List the labelled images of a folder or of a table.

    Args:
        data: Folder of class folders; folder of train/, val/ or test/ with class folders; or a CSV table, whose files
            are relative to its folder.
        labels: Table, see `read_label_table`; its files are then relative to the folder `data`.
        preset: Published layout of the table.
        columns: Names of the table's columns by standard name.
        mapping: New names of labels, such as `{"No Finding": "NORMAL"}`; case is ignored for keys that are no label.
        split: The split to use if the data have splits: train, val, test or a spelling in `SPLIT_NAMES`. `all`
            includes images without split.
        allow_missing: Whether to skip missing files of any table; those of published tables are always skipped.
        style: Notation of options in errors.

    Raises:
        ConfigError: An option does not fit the data.
        DataError: There are no images, the table is invalid, or files are missing.
    """
    if str(split).casefold() not in SPLIT_NAMES:  # Python callers may pass None
        raise ConfigError(f"{style.split.format(split)} is unknown: it must be {', '.join(SPLITS)} or {ALL}.")
    split = SPLIT_NAMES[str(split).casefold()]
    if labels is None and data.is_dir():
        reject_table_options(data, preset, columns, style=style)
        return _read_folder(data, mapping, split, style)
    if labels is not None and not data.is_dir():
        raise DataError(
            f"{data} is not a folder: with a table of labels, it must be the folder to which the table's files are "
            "relative."
        )
    if not data.exists():
        raise DataError(
            f"{data} does not exist. Use a folder with one folder per class, a folder with train/, val/ or test/, or a "
            "CSV table with the columns file and label."
        )
    table = read_label_table(data if labels is None else labels, preset, columns, style)
    root = data.parent if labels is None else data
    files = locate_files(table, root, allow_missing, style)
    return _read_table(table, files, set_name(data)[1], root, mapping, split, style)


def reject_table_options(
    folder: Path,
    preset: str | None,
    columns: Mapping[str, str],
    mapping: Mapping[str, str] = {},
    style: OptionStyle = COMMAND,
) -> None:
    """Raise a ConfigError if an option of tables is given for a folder without a table."""
    given = [style.preset.format(preset)] if preset is not None else []
    given += [style.column.format(*item) for item in columns.items()]
    given += [style.mapping.format(*item) for item in mapping.items()]
    if given:
        raise ConfigError(f"{given[0]} needs a table, but {folder} is a folder. Add the table, or omit the option.")


def _read_folder(data: Path, mapping: Mapping[str, str], split: str, style: OptionStyle) -> LabelledSet:
    tree = read_tree(data, command="", selection=_SELECTION)
    _check_split(data, split, any(file.split != UNSPLIT for file in tree.files), style)
    classes = _map_labels(tree.classes, mapping, data, style)
    used = [file for file in tree.files if split == ALL or file.split in (UNSPLIT, split)]
    if not used:
        raise DataError(
            f"{data} has no images of the split {split}, but of {', '.join(tree.splits)}. Use one of these splits, or "
            f"{ALL}."
        )
    images = [
        LabelledImage(
            file_path(tree.root, file.path),
            file.path,
            classes[file.label],
            file.patient or "",
            "",
            "" if file.split == UNSPLIT else file.split,
        )
        for file in used
    ]
    return LabelledSet(
        set_name(data)[1], tuple(images), (), tuple((name, "not an image of a class") for name in tree.junk)
    )


def _read_table(
    table: LabelTable,
    files: Sequence[Path | None],
    name: str,
    root: Path,
    mapping: Mapping[str, str],
    split: str,
    style: OptionStyle,
) -> LabelledSet:
    labels = _map_labels(table.values("label"), mapping, table.path, style)
    splits = _read_splits(table)
    _check_split(table.path, split, any(splits), style)
    patients, sites = table.values("patient"), table.values("site")
    extras = list(zip(*map(table.values, table.extra_columns), strict=True)) or [()] * len(labels)
    images: list[LabelledImage] = []
    skipped = list(table.skipped)
    for i, (file, text) in enumerate(zip(files, table.values("file"), strict=True)):
        if file is None:
            skipped.append((escape_path(text), NOT_FOUND))
        elif split == ALL or not any(splits) or splits[i] == split:
            images.append(
                LabelledImage(file, _relative_name(file, root), labels[i], patients[i], sites[i], splits[i], extras[i])
            )
        elif not splits[i]:
            skipped.append((_relative_name(file, root), NO_SPLIT))
    if not images:
        present = ", ".join(name for name in SPLITS if name in splits)
        raise DataError(
            f"{table.path} has no images of the split {split}, but of {present}. Use one of these splits, or {ALL}."
        )
    return LabelledSet(name, tuple(images), table.extra_columns, tuple(skipped))


def _check_split(data: Path, split: str, has_splits: bool, style: OptionStyle) -> None:
    """Raise a ConfigError if training or validation images are wanted of data without splits."""
    if not has_splits and split in ("train", "val"):
        raise ConfigError(
            f"{style.split.format(split)} has no effect on {data}, whose images have no splits. Omit it to use all "
            "images, or use data with train/, val/ and test/ or a column split."
        )


def _relative_name(file: Path, root: Path) -> str:
    text, start = str(file), f"{root}{os.sep}"
    if text.startswith(start):  # much faster than os.path.relpath
        return escape_path(os.path.normpath(text[len(start) :]).replace(os.sep, "/"))
    return relative_path(text, root)


def _map_labels(labels: Sequence[str], mapping: Mapping[str, str], source: Path, style: OptionStyle) -> list[str]:
    present = Counter(labels)
    # Case is ignored for keys that are no label: YAML reads the label TRUE as True, for example.
    folded = {key.casefold(): name for key, name in mapping.items() if key not in present}
    new = {label: mapping.get(label, folded.get(label.casefold(), label)) for label in present}
    used = {label.casefold() for label in present if label not in mapping}
    if unknown := [key for key in mapping if key not in present and key.casefold() not in used]:
        raise ConfigError(
            f"{style.mapping.format(unknown[0], mapping[unknown[0]] or style.null)} names a label that does not occur "
            f"in {source}. Its labels are {list_labels(present)}: use one of them."
        )
    return [new[label] for label in labels]


def list_labels(counts: Counter[str]) -> str:
    """Return the labels as text, the most frequent first."""
    listed = ", ".join(escape_line(label) for label, _ in counts.most_common(_LISTED))
    return f"{listed}, ..." if len(counts) > _LISTED else listed


def _read_splits(table: LabelTable) -> list[str]:
    values = table.values("split")
    unknown = [i for i, value in enumerate(values) if value and value.casefold() not in _CELLS]
    if unknown:
        raise DataError(
            f"{table.path} has {count_noun(len(unknown), 'row')} with a split such as "
            f"{values[unknown[0]]!r} ({describe_lines([table.lines[i] for i in unknown])}): it must be train, val or "
            "test, or empty. Correct these cells, or rename the column if it means something else."
        )
    return [_CELLS[value.casefold()] if value else "" for value in values]


def set_name(path: Path) -> tuple[str, str]:
    """Return the names of the folder around a set and of the set; a table labels.csv has the name of its folder."""
    path = Path(os.path.abspath(path))
    name = path.stem if path.is_file() else path.name
    if path.is_file() and name.casefold() == "labels":
        path, name = path.parent, path.parent.name
    return escape_line(escape_path(path.parent.name)), escape_line(escape_path(name)) or "images"
