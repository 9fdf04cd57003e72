"""The data modules of radiographs and of phantoms: batches of grey images."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from pneumo.common.array_cache import Array
from pneumo.common.hardware import count_cores
from pneumo.data import index
from pneumo.data.augmentation import Augmentation
from pneumo.data.batches import ArrayBatches, BatchIndices, Part, evaluation_order, training_order
from pneumo.data.download import download_chest_xray
from pneumo.data.folder_tree import find_data_sets
from pneumo.data.image_cache import ImageLoader, RadiographDataset, content_hash, decode_all, decoded_blocks, find_twins
from pneumo.data.image_notes import ImageNotes
from pneumo.data.index import Radiograph
from pneumo.data.phantoms import check_phantoms, write_phantoms
from pneumo.data.splits import Splits, check_split, split_radiographs
from pneumo.errors import ConfigError

_log = logging.getLogger(__name__)
Loader = DataLoader[dict[str, Any]] | ArrayBatches


class ChestXrayDataModule(LightningDataModule):
    """The train, val and test radiographs of a folder tree; by default the Kermany data, downloaded where missing.

    Batches are dictionaries: input, label (N,), index (N,). The input is images (N, 1, H, W) uint8, which stay grey and
    integer here, since the network's side expands and normalises them on its device; after `serve`, features (N, D).

    Source: Kermany et al., Cell 172 (2018), doi 10.17632/rscbjbr9sj.2, CC BY 4.0.
    """

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
    ) -> None:
        """Store the arguments, which `conf/data/chest_xray.yaml` describes; `pin_memory` page-locks GPU batches."""
        super().__init__()
        check_split(split, folds, fold)
        self.root, self.download = (index.default_root(), True) if root is None else (Path(root), False)
        self.classes, self.task = [str(name) for name in classes], task  # YAML reads [0,1] as numbers
        self.split, self.val_fraction, self.folds, self.fold = split, val_fraction, folds, fold
        self.image_size, self.crop_pct, self.batch_size = image_size, crop_pct, batch_size
        self.num_workers = min(8, count_cores()) if num_workers is None else num_workers
        self.seed, self.cache, self.cache_dir = seed, cache, Path(cache_dir)
        self.augmentation, self.pin_memory, self.notes = augmentation, pin_memory, ImageNotes()
        self.radiographs: list[Radiograph] = []
        self.splits: Splits = {}
        self.images: Array | None = None  # what batches are cut from; without them, images are decoded on the way
        self.features: Array | None = None  # batches are cut from these if they are served
        self.views: Array | None = None
        self.steps_per_batch, self.first_epoch, self.join_single = 1, 0, False

    def prepare_data(self) -> None:
        """Download the data if `root` was left to its default and no data set lies there or below."""
        if self.download and index.locate(self.root) is None and not find_data_sets(self.root):
            download_chest_xray(self.root)
        if not self.splits:  # Lightning has data prepared for each stage
            check_phantoms(self.root, default=self.download)

    def setup(self, stage: str | None = None) -> None:
        """Index the radiographs and split them, once for all stages."""
        if self.splits:
            return
        self.root = index.find_root(self.root)
        self.radiographs = index.index_radiographs(self.root, self.classes)
        if self.task == "subtype":
            self.radiographs, self.classes = index.label_subtypes(self.radiographs, self.classes)
        if self.split == "official" and all(radiograph.split != "val" for radiograph in self.radiographs):
            _log.warning("The data has no val folder: validation patients are held out as with data.split=patient.")
            self.split = "patient"
        twins = None
        if self.split != "official":
            cache = self.cache_dir if self.cache else None
            twins = find_twins(self._dataset(self.radiographs), self.num_workers, self.content_hash, cache)
        self.splits = split_radiographs(
            self.radiographs, self.split, self.val_fraction, self.seed, self.folds, self.fold, twins
        )
        for name, part in self.splits.items():
            _log.info("%s: %s", name, index.count_classes(part, self.classes))

    def open_images(self) -> None:
        """Open the decoded-image cache, if the settings have one, for batches to be cut from."""
        if self.cache and self.images is None:
            dataset = self._dataset(self.radiographs)
            self.images = decode_all(dataset, self.num_workers, self.content_hash, self.cache_dir)

    def image_blocks(self, positions: Sequence[int], size: int) -> Iterator[Tensor]:
        """Yield the radiographs at these positions of the index in blocks of images (size, 1, H, W) uint8."""
        if self.images is not None:
            for start in range(0, len(positions), size):
                yield torch.from_numpy(self.images[positions[start : start + size]])
        else:
            dataset = self._dataset([self.radiographs[i] for i in positions])
            yield from map(torch.from_numpy, decoded_blocks(dataset, 0, size, self.num_workers))

    def serve(self, features: Array, views: Array | None = None, steps_per_batch: int = 1) -> None:
        """Have batches cut from features in place of images.

        Args:
            features: Of all radiographs of the index, (N, D).
            views: Of augmented views of the M `trainable` ones, view after view, (views * M, D); an epoch takes one.
            steps_per_batch: Optimizer steps that the images of a training batch are for.
        """
        self.features, self.views, self.steps_per_batch = features, views, steps_per_batch
        self.notes.report()

    def join_single_image(self) -> None:
        """Have an image that is left over at the end of a training epoch join the batch before it."""
        self.join_single = True

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Augment training images on their device."""
        assert self.trainer is not None
        if not self.trainer.training or not self.augmentation.active or self.features is not None:
            return batch
        seed = self.seed * 100_000 + self.trainer.current_epoch
        numbers = self.augmentation.draw(len(self.splits["train"]), seed, batch["input"].device)
        return {**batch, "input": self.augmentation(batch["input"], numbers[batch["index"]])}

    def state_dict(self) -> dict[str, int]:
        """Return the epoch that comes next, since checkpoints are written at the end of epochs."""
        assert self.trainer is not None
        return {"epoch": self.trainer.current_epoch + 1}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Start with that epoch's order, which Lightning sets only after workers have begun their first batches."""
        if self.trainer is not None and self.trainer.training:
            self.first_epoch = state_dict["epoch"]

    def teardown(self, stage: str) -> None:
        """Report notes on images that no whole pass has reported, because limits shortened it."""
        self.notes.report()

    @property
    def data_hash(self) -> str:
        """Hash of the data, 16 hex digits, regardless of the split."""
        return index.data_hash(self.radiographs)

    @property
    def trainable(self) -> list[int]:
        """Positions in the index of all that is not for testing, which any split may train on."""
        return [i for i, radiograph in enumerate(self.radiographs) if radiograph.split != "test"]

    @cached_property
    def content_hash(self) -> str:
        """Hash of what the files hold, 32 hex digits."""
        return content_hash(self.root, self.radiographs, self.cache_dir)

    def train_dataloader(self) -> Loader:
        """Return shuffled training batches; their order follows from seed and epoch alone, so a run can be resumed."""
        rank, processes = self._place()
        return self._loader("train", training_order(self.splits["train"], rank, processes, self.seed, self.first_epoch))

    def val_dataloader(self) -> Loader:
        """Return the validation batches, shuffled once for all."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> Loader:
        """Return the test batches, shuffled once for all."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> Loader:
        """Return the test batches in the index's order; labels in them are for the caller to ignore."""
        return self._evaluation_loader("test", shuffled=False)

    def part(self, split: str, inputs: Array) -> Part:
        """Return what a split's batches are cut from."""
        images = self.splits[split]
        label = torch.tensor([radiograph.label for radiograph in images])
        if split != "train" or self.views is None:
            return Part(inputs, torch.tensor(index.indices_of(images, self.radiographs))[None], label)
        pool = [self.radiographs[i] for i in self.trainable]
        views = torch.arange(len(self.views) // len(pool))
        return Part(self.views, torch.tensor(index.indices_of(images, pool)) + len(pool) * views[:, None], label)

    def _evaluation_loader(self, split: str, shuffled: bool = True) -> Loader:
        rank, processes = self._place()
        return self._loader(split, evaluation_order(len(self.splits[split]), rank, processes, shuffled))

    def _dataset(self, radiographs: Sequence[Radiograph]) -> RadiographDataset:
        return RadiographDataset(self.root, radiographs, self.image_size, self.crop_pct, self.notes)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, split: str, sampler: DistributedSampler[Any] | list[int]) -> Loader:
        size = self.batch_size * (self.steps_per_batch if split == "train" else 1)
        batches = BatchIndices(sampler, size, split == "train" and self.join_single)
        inputs = self.images if self.features is None else self.features
        if inputs is not None:
            return ArrayBatches(self.part(split, inputs), batches, self.seed, self.pin_memory)
        return ImageLoader(
            self._dataset(self.splits[split]),
            **({"batch_sampler": batches} if batches.join_single else {"batch_size": size, "sampler": sampler}),
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator().manual_seed(self.seed),  # else each loader would draw from the global one
        )


class SyntheticDataModule(ChestXrayDataModule):
    """Phantom radiographs, drawn once and kept in a cache: for demonstrations and tests, without data or network."""

    def __init__(self, root: str | None, train: int, val: int, test: int, phantom_seed: int, **options: Any) -> None:  # noqa: ANN401
        """Store the numbers of phantoms and the seed of their drawings; `options` are those of the base class."""
        if root is None or index.is_default_root(Path(root)):
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
