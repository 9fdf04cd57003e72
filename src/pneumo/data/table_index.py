"""Index of the radiographs in a label table."""

import hashlib
import logging
import os
import shlex
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from pneumo.common.text import count_noun, quote_override
from pneumo.data.index import Radiograph, read_name, readable_entries
from pneumo.data.labelled_images import ALL, LabelledImage, LabelledSet, read_labelled
from pneumo.data.option_style import TRAINING
from pneumo.data.table_files import check_spellings
from pneumo.errors import DataError

_log = logging.getLogger(__name__)
TABLE_SETTINGS = ("table", "root", "preset", "columns", "mapping")  # names in the configuration
_SHOWN = 3  # examples in a message


@dataclass(frozen=True)
class TableSource:
    """Label table with the options for reading it, see `read_labelled`."""

    table: Path
    root: Path | None = None  # folder of the files; None: the folder of the table
    preset: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    mapping: Mapping[str, str | None] = field(default_factory=dict)  # class of each label; None: leave the images out


def table_source(
    table: str,
    root: str | None,
    preset: str | None,
    columns: Mapping[str, str | None],
    mapping: Mapping[Any, Any] | None,
) -> TableSource:
    """Return the source that the settings `TABLE_SETTINGS` of a data module describe."""
    return TableSource(
        Path(table),
        None if root is None else Path(root),
        preset,
        {name: column for name, column in columns.items() if column is not None},
        {
            str(label): name if name is None else str(name) for label, name in (mapping or {}).items()
        },  # YAML has numbers
    )


@dataclass(frozen=True)
class TableIndex:
    """Radiographs of a table; an unknown patient, site or split is an empty string."""

    root: Path  # folder to which the paths of the radiographs are relative
    radiographs: tuple[Radiograph, ...]  # sorted by path
    extra_columns: tuple[str, ...]  # names of `Radiograph.extra`
    data_hash: str  # hash of paths, sizes, classes, patients, sites and splits, 16 hex digits


def index_table(source: TableSource, classes: Sequence[str]) -> TableIndex:
    """List the radiographs of a table; labels are indices in `classes`.

    One warning reports all images that are left out.

    Raises:
        ConfigError: An option does not fit the table.
        DataError: The table is invalid, a label is not a class, or a class has no image. Other reasons are images
            without a split, and files that are missing or outside of the root.
    """
    if not source.table.is_file():
        raise DataError(
            f"data.table={source.table} is not a file. Set it to the path of a CSV file with the columns file and "
            "label."
        )
    root = source.table.parent if source.root is None else source.root
    if not root.is_dir():
        raise DataError(
            f"data.root={root} is not a folder. Set it to the folder to which the table's files are relative."
        )
    labelled = read_labelled(
        source.table if source.root is None else source.root,
        labels=None if source.root is None else source.table,
        preset=source.preset,
        columns=source.columns,
        mapping={label: name or "" for label, name in source.mapping.items()},
        split=ALL,
        style=TRAINING,
    )
    images = [image for image in labelled.images if image.label]
    _report_omitted(source.table, labelled)
    _check_labels(source.table, images, classes)
    _check_paths(source.table, root, images)
    _check_splits(source.table, images)
    label = {name: index for index, name in enumerate(classes)}
    with readable_entries():
        radiographs = [_make_radiograph(image, label[image.label]) for image in images]
    radiographs.sort(key=lambda radiograph: radiograph.path)
    return TableIndex(root, tuple(radiographs), labelled.extra_columns, _hash(radiographs, classes))


def show_values(values: Iterable[str]) -> str:
    """Return the first values as text, such as `A, B, C, ...`."""
    shown = list(values)
    return ", ".join(shown[:_SHOWN]) + (", ..." if shown[_SHOWN:] else "")


def _report_omitted(table: Path, labelled: LabelledSet) -> None:
    unused = [(image.name, "its label is mapped to null") for image in labelled.images if not image.label]
    omitted = [*labelled.skipped, *unused]
    if omitted:
        reasons = Counter(reason for _, reason in omitted)
        text = "; ".join(
            f"{count:,}: {reason} ({show_values(name for name, own in omitted if own == reason)})"
            for reason, count in reasons.most_common()
        )
        _log.warning("Leaving out %d images of %s: %s", len(omitted), table, text)


def _check_labels(table: Path, images: Sequence[LabelledImage], classes: Sequence[str]) -> None:
    counts = Counter(image.label for image in images)
    if unknown := [name for name in counts if name not in classes]:
        listed = show_values(f"{name} ({count_noun(counts[name], 'image')})" for name in unknown)
        raise DataError(
            f"{table} has labels that are not in data.classes=[{','.join(classes)}]: {listed}. Add them to "
            f"data.classes, or assign each to a class or to null, which leaves its images out: "
            f"{shlex.quote(f'data.mapping={{{unknown[0]}: {classes[0]}}}')}."
        )
    if missing := [name for name in classes if name not in counts]:
        raise DataError(
            f"{table} has no image with the label {missing[0]}, but data.classes=[{','.join(classes)}] requires it. "
            f"Its labels are {show_values(counts) or 'empty'}: set data.classes to them, or assign them with "
            "data.mapping."
        )


def _check_paths(table: Path, root: Path, images: Sequence[LabelledImage]) -> None:
    outside = [image for image in images if image.name.startswith("../") or PurePath(image.name).is_absolute()]
    if outside:
        common = os.path.commonpath([os.path.abspath(image.file) for image in images])
        raise DataError(
            f"{table} lists {count_noun(len(outside), 'file')} outside of {root}, such as "
            f"{show_values(image.name for image in outside)}. All files must be below data.root: set "
            f"{quote_override(f'data.root={common}')} and write the paths in the table relative to it, or absolute."
        )
    check_spellings(table, [image.name for image in images])


def _check_splits(table: Path, images: Sequence[LabelledImage]) -> None:
    without = [image.name for image in images if not image.split]
    if without and len(without) < len(images):
        raise DataError(
            f"{table} has no split for {len(without):,} of {len(images):,} images: {show_values(without)}. The column "
            "split must be train, val or test in each row; fill it, or delete the column."
        )


def _make_radiograph(image: LabelledImage, label: int) -> Radiograph:
    status = os.stat(image.file)
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{image.file} is not a regular file. Each row of a table must name an image file.")
    return Radiograph(
        image.name,
        label,
        read_name(image.file.name)[1],
        image.patient,
        image.split,
        status.st_size,
        status.st_mtime_ns,
        image.site,
        image.extra,
    )


def _hash(radiographs: Iterable[Radiograph], classes: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for image in radiographs:
        fields = (image.path, image.size, classes[image.label], image.patient, image.site, image.split)
        digest.update(("\0".join(map(str, fields)) + "\n").encode())
    return digest.hexdigest()[:16]
