"""Files that a label table lists, on the disk."""

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from pneumo.common.files import escape_path, unescape_path
from pneumo.common.text import count_noun
from pneumo.data.index import readable_entries, walk
from pneumo.data.label_table import LabelTable, describe_lines
from pneumo.data.option_style import COMMAND, OptionStyle
from pneumo.errors import DataError

_SHOWN = 3  # examples in a message
_SEARCHED = 100_000  # files, to suggest the right folder


def locate_files(
    table: LabelTable, root: Path, allow_missing: bool = False, style: OptionStyle = COMMAND
) -> list[Path | None]:
    r"""Return the path of each file of a table; None for a missing file that is allowed.

    Files are relative to `root`, or absolute; backslashes of Windows separate folders too. Those of a published table
    are also found in a sub-folder of `root`, with another suffix, or without the first folders of their path.

    Args:
        table: The label table.
        root: Folder of the files.
        allow_missing: Whether files may be missing; those of a published table always may.
        style: Notation of options in errors.

    Raises:
        DataError: A file is missing that must not be, no file exists, one is a folder, or one is ambiguous.
    """
    with readable_entries():
        search = _Search(root)
        files = [_locate(text, str(root), table, search) for text in table.values("file")]
        if folders := [i for i, file in enumerate(files) if file is not None and stat.S_ISDIR(file[1])]:
            raise _listed_folders(table, folders)
        missing = [i for i, file in enumerate(files) if file is None]
        required = table.preset is None and not allow_missing
        if missing and (required or len(missing) == len(files)):
            raise _missing_files(table, root, missing, style)
    return [None if file is None else Path(file[0]) for file in files]


def check_spellings(table: Path, names: Iterable[str]) -> None:
    """Raise a DataError if a file has several rows, as an absolute and a relative path for example.

    Args:
        table: Path of the table, for the error.
        names: Paths of its files, all relative to the same folder.
    """
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        listed = ", ".join(twice[:_SHOWN]) + (", ..." if len(twice) > _SHOWN else "")
        raise DataError(
            f"{table} lists {count_noun(len(twice), 'file')} more than once, in different spellings: {listed}. Keep "
            "one row per file."
        )


def _locate(text: str, root: str, table: LabelTable, search: "_Search") -> tuple[str, int] | None:
    """Return the path and the mode of a file; None if it does not exist."""
    for path in _candidates(text, root, table):
        with suppress(OSError):
            return path, os.stat(path).st_mode
    found = search.find(text, table.suffixes) if table.preset is not None else None
    return None if found is None else (found, stat.S_IFREG)


def _candidates(text: str, root: str, table: LabelTable) -> Iterator[str]:
    for path in dict.fromkeys((unescape_path(text), unescape_path(text.replace("\\", "/")))):
        yield os.path.join(root, path)
        yield from (os.path.join(root, f"{path}{suffix}") for suffix in table.suffixes)
        if table.preset is not None:  # such as CheXpert-v1.0-small/train/...
            parts = Path(path).parts
            yield from (os.path.join(root, *parts[start:]) for start in range(1, len(parts) - 1))


class _Search:
    """Search for files below a folder by name; the folder is read once, when the first file is searched."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: Mapping[str, Sequence[str]] | None = None

    def find(self, name: str, suffixes: Sequence[str]) -> str | None:
        """Return the only file of this name, with or without one of the suffixes; None if there is none."""
        if self._files is None:
            files = defaultdict(list)
            for entry in walk(self._root):
                files[entry.name].append(entry.path)
            self._files = files
        for paths in (self._files.get(f"{name}{suffix}", ()) for suffix in ("", *suffixes)):
            if len(paths) > 1:
                folders = ", ".join(sorted(os.path.dirname(file) for file in paths)[:_SHOWN])
                raise DataError(
                    f"{escape_path(name)} is in several folders below {self._root}: {folders}. Use one of them as the "
                    "folder of the images."
                )
            if paths:
                return paths[0]
        return None


def _listed_folders(table: LabelTable, folders: Sequence[int]) -> DataError:
    listed, where = _examples(table, folders)
    return DataError(
        f"{table.path} lists {count_noun(len(folders), 'folder')} as files: {listed} "
        f"({where}). Each row needs the path of an image file: check the column of the files."
    )


def _missing_files(table: LabelTable, root: Path, missing: Sequence[int], style: OptionStyle) -> DataError:
    listed, where = _examples(table, missing)
    stem = Path(unescape_path(table.values("file")[missing[0]].replace("\\", "/"))).stem
    found = next((entry.path for entry in islice(walk(root), _SEARCHED) if Path(entry.name).stem == stem), None)
    hint = "" if found is None else f" One of that name is {escape_path(os.path.relpath(found, root))}."
    folder = root if root.name else root.absolute()  # not the name . of the current folder
    others = "" if len(missing) == len(table.lines) else ", or correct or delete these rows"
    return DataError(
        f"{len(missing):,} of the {len(table.lines):,} files of {table.path} were not found in {folder}: {listed} "
        f"({where}).{hint} Use {style.root.format(table.path)} with the folder to which the paths are relative{others}."
    )


def _examples(table: LabelTable, rows: Sequence[int]) -> tuple[str, str]:
    files = table.values("file")
    listed = ", ".join(escape_path(files[i]) for i in rows[:_SHOWN]) + (", ..." if len(rows) > _SHOWN else "")
    return listed, describe_lines([table.lines[i] for i in rows])
