"""The data modules: radiographs in, batches of grey images out."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from pneumo.data.download import download_chest_xray
from pneumo.data.images import decode
from pneumo.data.index import Radiograph, count_classes, data_hash, find_root, index_radiographs, locate
from pneumo.data.phantoms import write_phantoms
from pneumo.data.splits import Splits, check_split, split_radiographs

_log = logging.getLogger(__name__)

DEFAULT_ROOT = Path("data/chest_xray")


class RadiographDataset(Dataset[dict[str, Any]]):
    """Radiographs as samples: image (1, size, size) uint8, label, and index, the position in the list."""

    def __init__(self, root: Path, radiographs: Sequence[Radiograph], image_size: int) -> None:
        """Take the radiographs, whose paths are relative to `root`, and the height and width to resize them to."""
        self.root = root
        self.radiographs = radiographs
        self.image_size = image_size

    def __len__(self) -> int:
        """Give the number of radiographs."""
        return len(self.radiographs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Decode one radiograph."""
        radiograph = self.radiographs[index]
        image = torch.from_numpy(decode(self.root / radiograph.path, self.image_size).copy())
        return {"image": image.unsqueeze(0), "label": radiograph.label, "index": index}


class ChestXrayDataModule(LightningDataModule):
    """The train, val and test radiographs of a folder tree; by default the Kermany data, downloaded where missing.

    Batches are dictionaries: image (N, 1, H, W) uint8, label (N,), index (N,). Images stay grey and integer here; the
    network's side expands and normalises them on its device.

    Source: Kermany et al., Cell 172 (2018), doi 10.17632/rscbjbr9sj.2, CC BY 4.0.
    """

    def __init__(
        self,
        root: str | None,
        classes: Sequence[str],
        split: str,
        val_fraction: float,
        image_size: int,
        batch_size: int,
        num_workers: int | None,
        seed: int,
        pin_memory: bool,
    ) -> None:
        """Remember the arguments; nothing is read before `prepare_data` and `setup`.

        Args:
            root: Folder that holds train/, test/ and maybe val/. None is data/chest_xray, else $PNEUMO_DATA_ROOT, and
                the data are downloaded where nothing is there.
            classes: Names of the class folders; the last is the positive class of a two-class task.
            split: official or patient; see `split_radiographs`.
            val_fraction: Share of the training patients that split=patient holds out.
            image_size: Height and width of the images in pixels.
            batch_size: Images per batch and device.
            num_workers: Processes that decode images; None is one per CPU core, eight at most.
            seed: Of the order of the training images and of split=patient.
            pin_memory: Keep batches in page-locked memory, for a GPU.
        """
        super().__init__()
        check_split(split)
        self.root = default_root() if root is None else Path(root)
        self.download = root is None
        self.classes = [str(name) for name in classes]  # YAML reads [0,1] as numbers
        self.split = split
        self.val_fraction = val_fraction
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = min(8, count_cores()) if num_workers is None else num_workers
        self.seed = seed
        self.pin_memory = pin_memory
        self.splits: Splits = {}
        self.first_epoch = 0

    def prepare_data(self) -> None:
        """Download the data if `root` was left to its default and nothing is there."""
        if self.download and locate(self.root) is None:
            download_chest_xray(self.root)

    def setup(self, stage: str | None = None) -> None:
        """Index the radiographs and split them, once for all stages."""
        if self.splits:
            return
        self.root = find_root(self.root)
        radiographs = index_radiographs(self.root, self.classes)
        self.splits = split_radiographs(radiographs, self.split, self.val_fraction, self.seed)
        for name, part in self.splits.items():
            _log.info("%s: %s", name, count_classes(part, self.classes))

    def state_dict(self) -> dict[str, int]:
        """Keep in checkpoints, which are written at the end of epochs, the epoch that comes next."""
        assert self.trainer is not None
        return {"epoch": self.trainer.current_epoch + 1}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Begin with that epoch's order; Lightning sets it only when workers have asked for their first batches."""
        if self.trainer is not None and self.trainer.training:
            self.first_epoch = state_dict["epoch"]

    @property
    def data_hash(self) -> str:
        """Hash of the data and its split, 16 hex digits."""
        return data_hash(self.splits)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Give shuffled training batches; their order follows from seed and epoch alone, so a run can be resumed."""
        rank, processes = self._place()
        dataset = self._dataset("train")
        # The sampler adds the epoch to its seed: keep the seeds' orders apart.
        sampler: DistributedSampler[Any] = DistributedSampler(dataset, processes, rank, seed=self.seed * 100_000)
        sampler.set_epoch(self.first_epoch)
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Give the validation batches, shuffled once for all."""
        return self._evaluation_loader("val", shuffled=True)

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Give the test batches, shuffled once for all."""
        return self._evaluation_loader("test", shuffled=True)

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Give the test batches in the index's order; labels in them are for the caller to ignore."""
        return self._evaluation_loader("test", shuffled=False)

    def _dataset(self, split: str) -> RadiographDataset:
        return RadiographDataset(self.root, self.splits[split], self.image_size)

    def _evaluation_loader(self, split: str, shuffled: bool) -> DataLoader[dict[str, Any]]:
        rank, processes = self._place()
        dataset = self._dataset(split)
        order = list(range(len(dataset)))
        if shuffled:  # so that the first batches, which trainer.limit_test_batches takes, are not of the first class
            order = torch.randperm(len(order), generator=torch.Generator().manual_seed(0)).tolist()
        # Not a DistributedSampler: that repeats images until all processes have as many, and they would count twice.
        return self._loader(dataset, order[rank::processes])

    def _place(self) -> tuple[int, int]:
        """Give this process's number and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, dataset: RadiographDataset, sampler: Iterable[int]) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator().manual_seed(self.seed),  # else each loader would draw from the global one
        )


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


def default_root() -> Path:
    """Give data/chest_xray, or $PNEUMO_DATA_ROOT where that is set and no data set lies in data/chest_xray."""
    named = os.environ.get("PNEUMO_DATA_ROOT")
    return Path(named) if named and locate(DEFAULT_ROOT) is None else DEFAULT_ROOT


def count_cores() -> int:
    """Give the number of cores that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
