"""The data module of synthetic radiographs."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.index import DEFAULT_ROOT
from pneumo.data.phantoms import write_phantoms
from pneumo.errors import ConfigError


class SyntheticDataModule(ChestXrayDataModule):
    """Phantom radiographs, drawn once and kept in a cache: for demonstrations and tests, without data or network."""

    def __init__(self, root: str | None, train: int, val: int, test: int, phantom_seed: int, **options: Any) -> None:  # noqa: ANN401
        """Store the numbers of phantoms and the seed of their drawings; `options` are those of the base class.

        Raises:
            ConfigError: `root` is missing, or a default folder of real radiographs.
        """
        if root is None or _is_default(Path(root)):
            raise ConfigError(
                f"data.root={'null' if root is None else root} is where real radiographs lie by default, and phantoms "
                "there would be taken for them later. Leave data.root out, so that they are kept in paths.cache_dir, "
                "or name another folder."
            )
        super().__init__(root=root, **options)
        self.sizes = {"train": train, "val": val, "test": test}
        self.phantom_seed = phantom_seed

    def prepare_data(self) -> None:
        """Draw the phantoms unless they are there."""
        write_phantoms(self.root, seed=self.phantom_seed, **self.sizes)
        with suppress(OSError):  # a cache that others filled may be read-only
            os.utime(self.root)  # `pneumo cache clear --unused` goes by it


def _is_default(root: Path) -> bool:
    named = os.environ.get("PNEUMO_DATA_ROOT")
    defaults = [DEFAULT_ROOT, *([Path(named)] if named else [])]
    return root.resolve() in {path.resolve() for folder in defaults for path in (folder, folder / "chest_xray")}
