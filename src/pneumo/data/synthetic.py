"""The data module of phantom radiographs."""

import os
from contextlib import suppress
from typing import Any

from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.phantoms import write_phantoms


class SyntheticDataModule(ChestXrayDataModule):
    """Phantom radiographs, drawn once and kept in a cache: for demonstrations and tests, without data or network."""

    def __init__(self, root: str, train: int, val: int, test: int, phantom_seed: int, **options: Any) -> None:  # noqa: ANN401
        """Take the numbers of phantoms to draw and the seed to draw them by.

        Args:
            root: Where the phantoms are kept; a tree of the same names that lies there is not drawn anew.
            train: Number of training images.
            val: Number of validation images.
            test: Number of test images.
            phantom_seed: Of the drawings.
            options: The other arguments of `ChestXrayDataModule`.
        """
        super().__init__(root=root, **options)
        self.sizes = {"train": train, "val": val, "test": test}
        self.phantom_seed = phantom_seed

    def prepare_data(self) -> None:
        """Draw the phantoms unless they are there."""
        write_phantoms(self.root, seed=self.phantom_seed, **self.sizes)
        with suppress(OSError):  # a cache that others filled may be read-only
            os.utime(self.root)  # `pneumo cache clear --unused` goes by it
