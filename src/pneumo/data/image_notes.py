"""Notes on doubtful images, collected, counted by kind and reported once."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pneumo.common.text import escape_line

_log = logging.getLogger(__name__)


class ImageNotes:
    """The notes on the images of a run.

    Attributes:
        found: Notes by image path; caches store them with their array.
    """

    def __init__(self) -> None:
        """Start without notes."""
        self.found: dict[str, list[str]] = {}
        self._reported: set[str] = set()

    def add(self, path: str, notes: Sequence[str]) -> None:
        """Add the notes on an image."""
        if notes:
            self.found[path] = list(notes)

    def report(self) -> None:
        """Log one warning about all images whose notes have not been reported yet."""
        new = {path: notes for path, notes in self.found.items() if path not in self._reported}
        self._reported.update(new)
        if new:
            count = f"{len(new):,} {'image is' if len(new) == 1 else 'images are'} doubtful"
            text = itemize(f"{count}:", summarize(new), "`pneumo audit` lists all such images.")
            _log.warning(text)  # not as an argument, whose line breaks would be escaped


def summarize(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Return one line per kind of note with its images, the most frequent kind first."""
    kinds: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for path, notes in found.items():
        for note in notes:
            kinds[note_kind(note)].append((path, note))
    lines = []
    for kind, pairs in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0])):
        text, images = (kind, f"{len(pairs):,} images") if len(pairs) > 1 else (pairs[0][1], "1 image")
        lines.append(f"{text} ({images}: {abbreviate(sorted(path for path, _ in pairs))})")
    return lines


def note_kind(note: str) -> str:
    """Return a note without its numbers, which are in parentheses."""
    return note.partition(" (")[0]


def itemize(head: str, items: Sequence[str], tail: str = "") -> str:
    """Join `head`, items and `tail`: a single item within a sentence, several as a list with one item per line."""
    items = [escape_line(item) for item in items]
    if len(items) == 1:
        return f"{head} {items[0]}." + (f" {tail}" if tail else "")
    return "\n".join([head, *(f"- {item}" for item in items), *([tail] if tail else [])])


def abbreviate(names: Iterable[str]) -> str:
    """Return the first three names and the number of the others as text."""
    listed = [escape_line(name) for name in names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3:,} more" if len(listed) > 3 else "")
