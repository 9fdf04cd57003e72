"""Notes on images: what makes files of a data set doubtful, counted and named once a run."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pneumo.escaping import escape_line

_log = logging.getLogger(__name__)

Found = dict[str, list[str]]


class ImageNotes:
    """The notes on a run's images.

    Attributes:
        found: Path of each image with notes, and these; caches keep it next to what they hold.
    """

    def __init__(self) -> None:
        """Begin without notes."""
        self.found: Found = {}
        self._reported: set[str] = set()

    def add(self, path: str, notes: Sequence[str]) -> None:
        """Keep the notes on an image."""
        if notes:
            self.found[path] = list(notes)

    def report(self) -> None:
        """Warn of the images with notes that were not reported yet, all in one warning."""
        new = {path: notes for path, notes in self.found.items() if path not in self._reported}
        self._reported.update(new)
        if new:
            count = f"{len(new):,} {'image is' if len(new) == 1 else 'images are'} doubtful"
            text = itemize(f"{count}:", summarize(new), "`pneumo audit` lists all such images.")
            _log.warning(text)  # without arguments, of which each would become one line


def summarize(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Count and name the images of each note, the most frequent first; notes of one kind count as one."""
    paths: defaultdict[str, list[str]] = defaultdict(list)
    texts: dict[str, str] = {}
    for path, notes in found.items():
        for note in notes:
            kind = note_kind(note)
            texts.setdefault(kind, note)
            paths[kind].append(path)
    order = sorted(paths, key=lambda kind: (-len(paths[kind]), kind))
    return [_describe(kind if len(paths[kind]) > 1 else texts[kind], paths[kind]) for kind in order]


def note_kind(note: str) -> str:
    """Return a note without its figures, which are in parentheses."""
    return note.partition(" (")[0]


def itemize(head: str, items: Sequence[str], tail: str = "") -> str:
    """Return one item within the sentence of `head`, and several as a list with a line for each."""
    items = [escape_line(item) for item in items]
    if len(items) == 1:
        return f"{head} {items[0]}." + (f" {tail}" if tail else "")
    return "\n".join([head, *(f"- {item}" for item in items), *([tail] if tail else [])])


def _describe(note: str, paths: list[str]) -> str:
    return f"{note} ({len(paths):,} {'image' if len(paths) == 1 else 'images'}: {some(sorted(paths))})"


def some(names: Iterable[str], most: int = 3) -> str:
    """Name some things of many."""
    listed = [escape_line(name) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most:,} more" if len(listed) > most else "")
