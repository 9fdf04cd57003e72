"""Data set of an audit: a folder tree, or the images of a label table in the form of a tree."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pneumo.data.folder_tree import SPLITS
from pneumo.data.image_tree import UNSPLIT, File, Tree, read_tree, require_distinct
from pneumo.data.index import file_path, read_name, readable_entries, relative_path
from pneumo.data.labelled_images import (
    ALL,
    NO_SPLIT,
    NOT_FOUND,
    LabelledImage,
    LabelledSet,
    list_labels,
    read_labelled,
    reject_table_options,
)
from pneumo.data.selection import DataSelection
from pneumo.data.table_files import check_spellings
from pneumo.errors import ConfigError, DataError

NOT_DOWNLOADED = "not downloaded"  # reason of `Tree.omitted`: few users have all files of a published table


def read_dataset(selection: DataSelection, classes: Sequence[str] = ()) -> Tree:
    """List the images of a folder tree or of a label table.

    Args:
        selection: A folder, a table, or a folder and its table. All splits are used.
        classes: Class folders, or labels of the table; by default all.

    Raises:
        ConfigError: There are no data, several tables, or an option that does not fit the data.
        DataError: The data are invalid; see `read_tree` and `read_labelled`.
    """
    if len(selection.labels) > 1:
        raise ConfigError(
            f"--labels is given {len(selection.labels)} times, but an audit reads one table. Audit each table on its "
            "own, or join them."
        )
    data, labels = selection.pairs()[0]
    if labels is None and data.is_dir():
        reject_table_options(data, selection.preset, selection.columns, selection.mapping)
        return read_tree(data, classes)
    labelled = read_labelled(
        data,
        labels=labels,
        preset=selection.preset,
        columns=selection.columns,
        mapping=selection.mapping,
        split=ALL,
        allow_missing=True,
    )
    missing = NOT_FOUND if selection.preset is None else NOT_DOWNLOADED
    table, root = (data, data.parent) if labels is None else (labels, data)
    return _build_tree(labelled, table, root, classes, missing)


def _build_tree(labelled: LabelledSet, table: Path, root: Path, classes: Sequence[str], missing: str) -> Tree:
    """Convert the images of a table to a tree; `missing` is the reason to omit files that were not found."""
    reasons = [missing if reason == NOT_FOUND else reason for _, reason in labelled.skipped]
    root, images, unused = _relate(labelled.images, [name for name, _ in labelled.skipped], root)
    check_spellings(table, [image.name for image in images])
    omitted = list(zip(unused, reasons, strict=True))
    if any(image.split for image in images):
        omitted += [(image.name, NO_SPLIT) for image in images if not image.split]
        images = [image for image in images if image.split]
    names = _select_classes(table, images, classes)
    omitted += [(image.name, "not of a selected class") for image in images if image.label not in names]
    images = [image for image in images if image.label in names]
    with readable_entries():
        files = [_make_file(image, names) for image in images]
    files.sort(key=lambda file: file.path)
    present = {file.split for file in files}
    splits = tuple(split for split in (UNSPLIT, *SPLITS) if split in present)
    return Tree(root, splits, names, tuple(files), (), table, tuple(sorted(omitted)))


def _select_classes(table: Path, images: Sequence[LabelledImage], classes: Sequence[str]) -> tuple[str, ...]:
    require_distinct(classes)
    counts = Counter(image.label for image in images)
    if missing := [name for name in classes if name not in counts]:
        raise DataError(
            f"--classes {','.join(classes)} selects {missing[0]}, but no image of {table} has this label. Its labels "
            f"are {list_labels(counts)}: use one of them."
        )
    return tuple(classes) or tuple(sorted(counts))


def _relate(
    images: Sequence[LabelledImage], skipped: Sequence[str], root: Path
) -> tuple[Path, list[LabelledImage], list[str]]:
    """Return the common folder of the images, which is `root` if all are below it, and all names relative to it.

    Args:
        images: The images.
        skipped: Other names in the table, relative to `root`.
        root: Folder of the table's files.
    """
    if not any(image.name.startswith("../") for image in images):
        return root, list(images), list(skipped)
    # The links of a file's folder are resolved, since `..` after a link is another folder; its own name is kept.
    files = [_resolve_folder(image.file) for image in images]
    common = Path(os.path.commonpath([file.parent for file in files]))
    names = [relative_path(str(file), common) for file in files]
    unused = [relative_path(str(_resolve_folder(file_path(root, name))), common) for name in skipped]
    return common, [replace(image, name=name) for image, name in zip(images, names, strict=True)], unused


def _resolve_folder(file: Path) -> Path:
    return file.parent.resolve() / file.name


def _make_file(image: LabelledImage, classes: Sequence[str]) -> File:
    _, subtype = read_name(image.file.name)
    size = image.file.stat().st_size
    label = classes.index(image.label)
    return File(image.name, image.split or UNSPLIT, label, subtype, image.patient or None, size)
