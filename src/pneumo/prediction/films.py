"""Radiographs made ready for a network: read by threads, in order, a few ahead of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pneumo.data.footprint import BUDGET
from pneumo.data.images import square
from pneumo.data.radiograph import read_radiograph
from pneumo.errors import DataError
from pneumo.prediction.network import Images
from pneumo.prediction.rules import Rules

LONGEST = 1024  # pixels of an image that is shown


@dataclass(frozen=True)
class Film:
    """A radiograph that was read, or the reason why it was not.

    Attributes:
        path: The file's; `-` of one that was given by its content.
        square: The network's input, (1, S, S).
        notes: What may make a prediction doubtful.
        shown: A copy at its own aspect, no side longer than LONGEST; None unless it was asked for.
        error: Why it cannot be read, as a predicate; then all else is missing.
    """

    path: Path
    square: Images | None = None
    notes: tuple[str, ...] = ()
    shown: Image.Image | None = None
    error: str | None = None


def read_film(source: Path | bytes, rules: Rules, show: bool) -> Film:
    """Read a file, or its content, as the input of a network with these rules; with `show` keep a copy to look at."""
    path = source if isinstance(source, Path) else Path("-")
    with BUDGET.share():
        try:
            image, notes = read_radiograph(source)
        except DataError as error:
            return Film(path, error=str(error))
        pixels = square(image, rules.image_size, rules.crop_pct)[None]
        if show:
            image.thumbnail((LONGEST, LONGEST), Image.Resampling.BICUBIC)
    return Film(path, pixels, notes, image if show else None)


def read_films(paths: Iterable[Path], rules: Rules, show: bool, threads: int, ahead: int) -> Generator[Film]:
    """Read files in order; at full size each thread has one in memory, as far as `BUDGET` allows.

    Args:
        paths: The files.
        rules: The network's.
        show: Keep copies to look at.
        threads: That read; Pillow and pydicom let others work while they decode.
        ahead: How many files are read before they are asked for.
    """
    pool = ThreadPoolExecutor(threads, "films")
    waiting: deque[Future[Film]] = deque()
    try:
        for path in paths:
            waiting.append(pool.submit(read_film, path, rules, show))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the reader of this goes away
        pool.shutdown(cancel_futures=True)
