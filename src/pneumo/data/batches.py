"""Batches from a cached array, without worker processes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler

from pneumo.common.array_cache import Array


@dataclass(frozen=True)
class SplitRows:
    """Rows of an array that belong to one split."""

    array: Array  # inputs of the whole data set: images (R, 1, H, W) uint8, or features (R, D)
    rows: Tensor  # row index of each view of each image in the split, (views, N)
    label: Tensor  # labels of the images in the split, (N,)

    def sample_rows(self, seed: int) -> Tensor:
        """Return the row of one random view of each image in the split, (N,)."""
        views, images = self.rows.shape
        if views == 1:
            return self.rows[0]
        view = torch.randint(views, (images,), generator=torch.Generator().manual_seed(seed))
        return self.rows[view, torch.arange(images)]


def training_order(images: Sequence[Any], rank: int, world_size: int, seed: int, epoch: int) -> DistributedSampler[Any]:
    """Return the sampler of a process for training; its order depends only on seed and epoch."""
    dataset: Any = images  # the sampler uses only its length
    # The sampler adds the epoch to the seed; the factor prevents collisions between seeds.
    sampler: DistributedSampler[Any] = DistributedSampler(dataset, world_size, rank, seed=seed * 100_000)
    sampler.set_epoch(epoch)
    return sampler


def evaluation_order(count: int, rank: int, world_size: int, shuffled: bool) -> list[int]:
    """Return the indices of the validation or test images that the process `rank` evaluates.

    The order is the same in all epochs. It is shuffled so that the first batches, which trainer.limit_test_batches
    selects, contain both classes. A DistributedSampler is not used, because it would repeat images to equalize the
    number of images per process, and these would be counted twice.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(count, generator=generator).tolist() if shuffled else list(range(count))
    return order[rank::world_size]


class BatchIndices(BatchSampler):
    """Batch sampler that can merge a last batch of one index into the previous batch.

    Batch normalization can fail in training on a batch of one image.
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, merge_single: bool) -> None:
        """Initialize with a sampler of indices; `merge_single` enables the merging."""
        super().__init__(sampler, batch_size, drop_last=False)
        self.merge_single = merge_single

    def __len__(self) -> int:
        """Return the number of batches."""
        batches = super().__len__()
        return batches - (self.merge_single and batches > 1 and len(self.sampler) % self.batch_size == 1)  # type: ignore[arg-type] # our samplers have a length

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of an epoch."""
        batches = list(super().__iter__())
        if self.merge_single and len(batches) > 1 and len(batches[-1]) == 1:
            single = batches.pop()
            batches[-1] += single
        yield from batches


def merge_single_image(blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    """Yield blocks of images, with a last block of one image merged into the previous block."""
    pending: list[Tensor] = []
    for block in blocks:
        if pending and len(block) > 1:
            yield torch.cat(pending)
            pending = []
        pending.append(block)
    if pending:
        yield torch.cat(pending)


class ArrayBatches:
    """Data loader of one split; batches are dictionaries with input, label (N,) and index within the split (N,)."""

    def __init__(self, split_rows: SplitRows, batches: BatchIndices, seed: int, pin: bool) -> None:
        """Store the split, the batch sampler, the seed for sampling views, and whether to pin memory."""
        self.split_rows, self.seed, self.pin = split_rows, seed, pin
        self.batch_sampler, self.sampler = batches, batches.sampler  # Lightning sets the sampler's epoch

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches of an epoch."""
        epoch = self.sampler.epoch if isinstance(self.sampler, DistributedSampler) else 0
        rows = self.split_rows.sample_rows(self.seed * 100_000 + epoch)
        for index in map(torch.tensor, self.batch_sampler):
            # Fancy indexing copies, so changes of the batch do not affect the cache.
            inputs = torch.from_numpy(self.split_rows.array[rows[index].numpy()])
            batch = {"input": inputs, "label": self.split_rows.label[index], "index": index}
            yield {name: tensor.pin_memory() for name, tensor in batch.items()} if self.pin else batch
