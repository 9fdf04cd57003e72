"""Batches of the splits of a data set, as the base class of data modules."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from pneumo.common.array_cache import Array
from pneumo.common.hardware import count_cores
from pneumo.common.input_format import InputFormat
from pneumo.data import image_cache, index
from pneumo.data.augmentation import Augmentation
from pneumo.data.batches import ArrayBatches, BatchIndices, SplitRows, evaluation_order, training_order
from pneumo.data.image_cache import ImageLoader, RadiographDataset
from pneumo.data.image_notes import ImageNotes
from pneumo.data.index import Radiograph
from pneumo.data.splits import Splits

Loader = DataLoader[dict[str, Any]] | ArrayBatches


class SplitLoaders(LightningDataModule):
    """Data loaders of the splits, which subclasses set in `setup` together with `radiographs`.

    Batches are dictionaries with input, label (N,) and index (N,). The inputs are grayscale images (N, 1, H, W)
    uint8, which the classifier expands and normalizes on its device, or features (N, D) after `use_features`.
    """

    def __init__(
        self,
        root: Path,
        input_format: InputFormat,
        batch_size: int,
        num_workers: int | None,
        seed: int,
        cache: bool,
        cache_dir: str,
        augmentation: Augmentation,
        pin_memory: bool,
    ) -> None:
        """Store the arguments, described in `conf/data/chest_xray.yaml`; `pin_memory` page-locks batches for GPUs."""
        super().__init__()
        self.root, self.input_format, self.batch_size = root, input_format, batch_size
        self.num_workers = min(8, count_cores()) if num_workers is None else num_workers
        self.seed, self.cache, self.cache_dir = seed, cache, Path(cache_dir)
        self.augmentation, self.pin_memory, self.notes = augmentation, pin_memory, ImageNotes()
        self.radiographs: list[Radiograph] = []
        self.splits: Splits = {}
        self.images: Array | None = None  # the decoded-image cache; None: images are decoded for each batch
        self.features: Array | None = None  # inputs of batches after `use_features`, in place of images
        self.views: Array | None = None
        self.steps_per_batch, self.first_epoch, self.merge_single = 1, 0, False

    def open_images(self) -> None:
        """Open the decoded-image cache, if enabled, as the source of batches."""
        if self.cache and self.images is None:
            dataset = self._dataset(self.radiographs)
            self.images = image_cache.decode_all(dataset, self.num_workers, self.content_hash, self.cache_dir)

    def image_blocks(self, indices: Sequence[int], size: int) -> Iterator[Tensor]:
        """Yield images of the radiographs at these indices in blocks (size, 1, H, W) uint8."""
        if self.images is not None:
            for start in range(0, len(indices), size):
                yield torch.from_numpy(self.images[indices[start : start + size]])
        else:
            dataset = self._dataset([self.radiographs[i] for i in indices])
            yield from map(torch.from_numpy, image_cache.decoded_blocks(dataset, 0, size, self.num_workers))

    def use_features(self, features: Array, views: Array | None = None, steps_per_batch: int = 1) -> None:
        """Use features instead of images as the inputs of batches.

        Args:
            features: Features of all N radiographs, (N, D).
            views: Features of augmented views of the M radiographs at `non_test_indices`, view by view, (views * M, D).
                An epoch uses one random view of each image.
            steps_per_batch: Number of optimizer steps that one training batch covers.
        """
        self.features, self.views, self.steps_per_batch = features, views, steps_per_batch
        self.notes.report()

    def merge_single_image(self) -> None:
        """Merge a last training batch of one image into the previous batch."""
        self.merge_single = True

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Augment training images on the device of the batch."""
        assert self.trainer is not None
        if not self.trainer.training or not self.augmentation.active or self.features is not None:
            return batch
        seed = self.seed * 100_000 + self.trainer.current_epoch
        numbers = self.augmentation.draw(len(self.splits["train"]), seed, batch["input"].device)
        return {**batch, "input": self.augmentation(batch["input"], numbers[batch["index"]])}

    def state_dict(self) -> dict[str, int]:
        """Return the next epoch, since checkpoints are written at the end of an epoch."""
        assert self.trainer is not None
        return {"epoch": self.trainer.current_epoch + 1}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the epoch of the first training order; Lightning sets it only after workers have loaded batches."""
        if self.trainer is not None and self.trainer.training:
            self.first_epoch = state_dict["epoch"]

    def teardown(self, stage: str) -> None:
        """Report the image notes of incomplete passes over a split, such as with trainer.limit_test_batches."""
        self.notes.report()

    @property
    def non_test_indices(self) -> list[int]:
        """Indices of all radiographs outside the test folder; each may be a training image in some split."""
        return [i for i, radiograph in enumerate(self.radiographs) if radiograph.split != "test"]

    @cached_property
    def content_hash(self) -> str:
        """Hash of the file contents, 32 hex digits."""
        return image_cache.content_hash(self.root, self.radiographs, self.cache_dir)

    def train_dataloader(self) -> Loader:
        """Return shuffled training batches; their order depends only on seed and epoch, so a run can be resumed."""
        rank, world_size = self._rank_and_world_size()
        sampler = training_order(self.splits["train"], rank, world_size, self.seed, self.first_epoch)
        return self._loader("train", sampler)

    def val_dataloader(self) -> Loader:
        """Return the validation batches, in the same shuffled order in all epochs."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> Loader:
        """Return the test batches, in the same shuffled order each time."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> Loader:
        """Return the test batches in the order of the test split, for predictions that do not use the labels."""
        return self._evaluation_loader("test", shuffled=False)

    def split_rows(self, split: str, inputs: Array) -> SplitRows:
        """Return the rows of `inputs`, or of the augmented views, that belong to a split."""
        images = self.splits[split]
        label = torch.tensor([radiograph.label for radiograph in images])
        if split != "train" or self.views is None:
            return SplitRows(inputs, torch.tensor(index.indices_of(images, self.radiographs))[None], label)
        pool = [self.radiographs[i] for i in self.non_test_indices]
        views = torch.arange(len(self.views) // len(pool))
        return SplitRows(self.views, torch.tensor(index.indices_of(images, pool)) + len(pool) * views[:, None], label)

    def _evaluation_loader(self, split: str, shuffled: bool = True) -> Loader:
        rank, world_size = self._rank_and_world_size()
        return self._loader(split, evaluation_order(len(self.splits[split]), rank, world_size, shuffled))

    def _dataset(self, radiographs: Sequence[Radiograph]) -> RadiographDataset:
        return RadiographDataset(self.root, radiographs, self.input_format, self.notes)

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, split: str, sampler: DistributedSampler[Any] | list[int]) -> Loader:
        size = self.batch_size * (self.steps_per_batch if split == "train" else 1)
        batches = BatchIndices(sampler, size, split == "train" and self.merge_single)
        inputs = self.images if self.features is None else self.features
        if inputs is not None:
            return ArrayBatches(self.split_rows(split, inputs), batches, self.seed, self.pin_memory)
        return ImageLoader(
            self._dataset(self.splits[split]),
            **({"batch_sampler": batches} if batches.merge_single else {"batch_size": size, "sampler": sampler}),
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator().manual_seed(self.seed),  # instead of the global generator
        )
