"""Batches cut from a cached array, without worker processes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler

from pneumo.common.array_cache import Array


@dataclass(frozen=True)
class Part:
    """What one split's batches are cut from."""

    array: Array  # all inputs of the data set: images (R, 1, H, W) uint8, or features (R, D)
    rows: Tensor  # which of its rows show which image of the split in which view, (views, N)
    label: Tensor  # of the split's images, (N,)

    def choose(self, seed: int) -> Tensor:
        """Return a row for each image of the split, (N,): of several views one at random."""
        views, images = self.rows.shape
        if views == 1:
            return self.rows[0]
        chosen = torch.randint(views, (images,), generator=torch.Generator().manual_seed(seed))
        return self.rows[chosen, torch.arange(images)]


def training_order(images: Sequence[Any], rank: int, processes: int, seed: int, epoch: int) -> DistributedSampler[Any]:
    """Return the order of a process's training images, which follows from seed and epoch alone."""
    dataset: Any = images  # of which the sampler asks the length only
    # The sampler adds the epoch to its seed: keep the seeds' orders apart.
    sampler: DistributedSampler[Any] = DistributedSampler(dataset, processes, rank, seed=seed * 100_000)
    sampler.set_epoch(epoch)
    return sampler


def evaluation_order(count: int, rank: int, processes: int, shuffled: bool) -> list[int]:
    """Return the indices in a validation or test split of `count` images that the process `rank` evaluates.

    Shuffled, once for all epochs, the first batches, which trainer.limit_test_batches selects, hold both classes. A
    DistributedSampler would repeat images until all processes have as many, and they would count twice.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(count, generator=generator).tolist() if shuffled else list(range(count))
    return order[rank::processes]


class BatchIndices(BatchSampler):
    """Batches of indices, where a single last one can join the batch before it, for batch normalization in training."""

    def __init__(self, sampler: Iterable[int], batch_size: int, join_single: bool) -> None:
        """Build batches of `batch_size` indices; `join_single` adds a last single one to the batch before it."""
        super().__init__(sampler, batch_size, drop_last=False)
        self.join_single = join_single

    def __len__(self) -> int:
        """Return the number of batches."""
        batches = super().__len__()
        return batches - (self.join_single and batches > 1 and len(self.sampler) % self.batch_size == 1)  # type: ignore[arg-type] # ours have a length

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of an epoch."""
        batches = list(super().__iter__())
        if self.join_single and len(batches) > 1 and len(batches[-1]) == 1:
            single = batches.pop()
            batches[-1] += single
        yield from batches


def join_single(blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    """Return blocks of images, where a last one of a single image joins the block before it."""
    before: list[Tensor] = []
    for block in blocks:
        if before and len(block) > 1:
            yield torch.cat(before)
            before = []
        before.append(block)
    if before:
        yield torch.cat(before)


class ArrayBatches:
    """A loader of one split; its batches are dictionaries: input, label (N,) and index in the split (N,)."""

    def __init__(self, part: Part, batches: BatchIndices, seed: int, pin: bool) -> None:
        """Store the split, its batches of indices, the seed of the choice among views, and whether to pin memory."""
        self.part, self.seed, self.pin = part, seed, pin
        self.batch_sampler, self.sampler = batches, batches.sampler  # Lightning sets the sampler's epoch

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches of an epoch."""
        epoch = self.sampler.epoch if isinstance(self.sampler, DistributedSampler) else 0
        rows = self.part.choose(self.seed * 100_000 + epoch)
        for index in map(torch.tensor, self.batch_sampler):
            # Fancy indexing copies, so the batch is writable and the cache is not at risk.
            cut = torch.from_numpy(self.part.array[rows[index].numpy()])
            batch = {"input": cut, "label": self.part.label[index], "index": index}
            yield {name: tensor.pin_memory() for name, tensor in batch.items()} if self.pin else batch
