"""Cached array for concurrent processes, in a module that they can import by name."""

import logging
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

from pneumo.common.array_cache import Array, Recipe, find_or_build

RECIPE = Recipe("features", {"weights": "abc"}, (100, 3), "float32", "Computing")


WHOLE = np.random.default_rng(0).random((100, 3), np.float32)


def blocks(start: int) -> Iterator[Array]:
    for i in range(start, 100, 7):
        yield WHOLE[i : i + 7]


def slow_blocks(start: int) -> Iterator[Array]:
    for block in blocks(start):
        time.sleep(0.1)
        yield block


def request_array(folder: Path, number: int, barrier: Barrier) -> None:
    logging.basicConfig(level=logging.INFO, filename=folder / f"{number}.log")
    starts = []

    def counted(start: int) -> Iterator[Array]:
        starts.append(start)
        return slow_blocks(start)

    barrier.wait()  # imports take seconds, possibly longer than the computation
    array = find_or_build(folder / "cache", RECIPE, counted)
    np.testing.assert_array_equal(array, WHOLE)
    (folder / f"{number}.done").write_text("built" if starts else "waited")
