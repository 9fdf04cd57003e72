"""Data modules of folder trees: radiographs, and phantoms."""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pneumo.common.input_format import NO_HISTOGRAM, SQUEEZE, InputFormat
from pneumo.data import image_cache, index
from pneumo.data.augmentation import Augmentation
from pneumo.data.download import download_chest_xray
from pneumo.data.folder_tree import find_data_sets
from pneumo.data.index import Radiograph
from pneumo.data.patient_names import complete_patients
from pneumo.data.phantoms import check_phantoms, write_phantoms
from pneumo.data.split_loaders import SplitLoaders
from pneumo.data.splits import METHODS, Splits, check_split, split_radiographs
from pneumo.errors import ConfigError

_log = logging.getLogger(__name__)


class ChestXrayDataModule(SplitLoaders):
    """Radiographs of a folder tree with train, val and test; by default the Kermany data, downloaded if missing.

    Source: Kermany et al., Cell 172 (2018), doi 10.17632/rscbjbr9sj.2, CC BY 4.0.
    """

    extra_columns: tuple[str, ...] | None = None  # names of `Radiograph.extra`; None: the data set is a folder tree
    _split_methods: tuple[str, ...] = METHODS
    _missing_validation = "The data set has no val folder"

    def __init__(
        self,
        root: str | None,
        classes: Sequence[str],
        task: str,
        split: str,
        val_fraction: float,
        folds: int,
        fold: int,
        image_size: int,
        crop_pct: float,
        batch_size: int,
        num_workers: int | None,
        seed: int,
        cache: bool,
        cache_dir: str,
        augmentation: Augmentation,
        pin_memory: bool,
        aspect: str = SQUEEZE,
        histogram: str = NO_HISTOGRAM,
    ) -> None:
        """Store the arguments, described in `conf/data/chest_xray.yaml`; `pin_memory` page-locks batches for GPUs."""
        found, self.download = (index.default_root(), True) if root is None else (Path(root), False)
        input_format = InputFormat(image_size, crop_pct, aspect, histogram)
        super().__init__(found, input_format, batch_size, num_workers, seed, cache, cache_dir, augmentation, pin_memory)
        check_split(split, folds, fold, self._split_methods)
        self.classes, self.task = [str(name) for name in classes], task  # YAML reads [0,1] as numbers
        self.split, self.val_fraction, self.folds, self.fold = split, val_fraction, folds, fold

    def prepare_data(self) -> None:
        """Download the data if `root` has its default and contains no data set."""
        if self.download and index.locate(self.root) is None and not find_data_sets(self.root):
            download_chest_xray(self.root)
        if not self.splits:  # Lightning calls this for each stage
            check_phantoms(self.root, default=self.download)

    def setup(self, stage: str | None = None) -> None:
        """Index and split the radiographs, once for all stages."""
        if self.splits:
            return
        self.radiographs = self._index()
        if self.split == "official" and all(radiograph.split != "val" for radiograph in self.radiographs):
            _log.warning("%s: holding out validation patients, as with data.split=patient.", self._missing_validation)
            self.split = "patient"
        groups = None
        if self.split != "official":
            cache = self.cache_dir if self.cache else None
            dataset = self._dataset(self.radiographs)
            groups = image_cache.find_near_duplicates(dataset, self.num_workers, self.content_hash, cache)
        self.splits = self._split(groups)
        for name, radiographs in self.splits.items():
            _log.info("%s: %s", name, index.count_classes(radiographs, self.classes))

    @property
    def data_hash(self) -> str:
        """Hash of all file paths and sizes, 16 hex digits, regardless of the split settings."""
        return index.data_hash(self.radiographs)

    def _index(self) -> list[Radiograph]:
        """Set root and classes, and return all radiographs with the splits that the data set defines."""
        self.root = index.find_root(self.root)
        radiographs = index.index_radiographs(self.root, self.classes)
        names = [index.read_name(os.path.basename(image.path))[0] or "" for image in radiographs]
        fallback = [image.patient for image in radiographs]
        radiographs = complete_patients(self.root, radiographs, names, fallback, "file names")
        if self.task == "subtype":
            radiographs, self.classes = index.label_subtypes(radiographs, self.classes)
        return radiographs

    def _split(self, groups: Sequence[int] | None) -> Splits:
        """Split the radiographs; `groups` are their near-duplicates, (N,)."""
        return split_radiographs(
            self.radiographs, self.split, self.val_fraction, self.seed, self.folds, self.fold, groups
        )


class SyntheticDataModule(ChestXrayDataModule):
    """Phantom radiographs, drawn once into the cache; for demonstrations and tests without data or network."""

    def __init__(self, root: str | None, train: int, val: int, test: int, phantom_seed: int, **options: Any) -> None:  # noqa: ANN401
        """Store the numbers of phantoms and the seed for drawing them; `options` are those of the base class."""
        if root is None or index.is_default_root(Path(root)):
            raise ConfigError(
                f"data.root={'null' if root is None else root} is the default folder of real radiographs, so "
                "phantoms in it could later be mistaken for them. Omit data.root to store phantoms in paths.cache_dir, "
                "or use another folder."
            )
        super().__init__(root=root, **options)
        self.sizes = {"train": train, "val": val, "test": test}
        self.phantom_seed = phantom_seed

    def prepare_data(self) -> None:
        """Draw the phantoms if they do not exist yet."""
        write_phantoms(self.root, seed=self.phantom_seed, **self.sizes)
        with suppress(OSError):  # a cache shared by several users may be read-only
            os.utime(self.root)  # the time of last use for `pneumo cache clear --unused`
