"""How far long work has come: a live bar on a terminal, a line now and then elsewhere."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_log = logging.getLogger(__name__)

INTERVAL = 10.0  # seconds between lines


@contextmanager
def track(doing: str, total: int, start: int = 0) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number that is done.

    Args:
        doing: Such as `Decoding images`.
        total: How many there are.
        start: How many of them an earlier run has done.
    """
    begun = time.perf_counter()
    _log.info("%s: %d%s", doing, total, f", going on from {start}" if start else "")
    console = rich.get_console()  # that of the log, whose lines then come above the bar
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(doing, total=total, completed=start)
            yield lambda done: bar.update(task, completed=done)
    else:
        yield _lines(doing, total)
    seconds = time.perf_counter() - begun
    _log.info("%s: done in %.1f s, %.0f a second", doing, seconds, (total - start) / max(seconds, 1e-9))


def _lines(doing: str, total: int) -> Callable[[int], None]:
    last = time.perf_counter()

    def tell(done: int) -> None:
        nonlocal last
        if time.perf_counter() - last > INTERVAL:
            last = time.perf_counter()
            _log.info("%s: %d of %d", doing, done, total)

    return tell
