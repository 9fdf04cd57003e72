"""Batches cut from an array that lies in a cache: no worker process, and no work in Python for each image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from pneumo.cache import Array


@dataclass(frozen=True)
class Part:
    """What one split's batches are cut from.

    Attributes:
        array: All inputs of the data set: images (R, 1, H, W) uint8, or features (R, D).
        rows: Which of its rows show which image of the split in which view, (views, N).
        label: Of the split's images, (N,).
    """

    array: Array
    rows: Tensor
    label: Tensor

    def choose(self, seed: int) -> Tensor:
        """Give a row for each image of the split, (N,): of several views one at random."""
        views, images = self.rows.shape
        if views == 1:
            return self.rows[0]
        chosen = torch.randint(views, (images,), generator=torch.Generator().manual_seed(seed))
        return self.rows[chosen, torch.arange(images)]


def training_order(
    images: Sequence[Any], rank: int, processes: int, seed: int, epoch: int
) -> "DistributedSampler[Any]":
    """Give the order of a process's training images, which follows from seed and epoch alone."""
    dataset: Any = images  # of which the sampler asks the length only
    # The sampler adds the epoch to its seed: keep the seeds' orders apart.
    sampler: DistributedSampler[Any] = DistributedSampler(dataset, processes, rank, seed=seed * 100_000)
    sampler.set_epoch(epoch)
    return sampler


class ArrayBatches:
    """A loader of one split; its batches are dictionaries: input, label (N,) and index (N,), the place in the split."""

    def __init__(
        self, part: Part, sampler: "DistributedSampler[int] | Sequence[int]", batch_size: int, seed: int, pin: bool
    ) -> None:
        """Take what to cut from and in which order.

        Args:
            part: The split.
            sampler: Gives the order of its images.
            batch_size: Images per batch.
            seed: Of the choice among views, which also follows the sampler's epoch.
            pin: Put batches in page-locked memory, for a GPU.
        """
        self.part = part
        self.sampler = sampler  # Lightning tells it the epoch
        self.batch_sampler = None  # Lightning asks for it wherever there is a sampler
        self.batch_size = batch_size
        self.seed = seed
        self.pin = pin

    def __len__(self) -> int:
        """Give the number of batches."""
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Cut the batches of an epoch."""
        rows = self.part.choose(self.seed * 100_000 + getattr(self.sampler, "epoch", 0))
        order = torch.tensor(list(self.sampler), dtype=torch.int64)
        for start in range(0, len(order), self.batch_size):
            index = order[start : start + self.batch_size]
            # Fancy indexing copies, so the batch is writable and the cache is not at risk.
            cut = torch.from_numpy(self.part.array[rows[index].numpy()])
            batch = {"input": cut, "label": self.part.label[index], "index": index}
            yield {name: tensor.pin_memory() for name, tensor in batch.items()} if self.pin else batch
