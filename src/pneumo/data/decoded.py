"""The decoded-image cache: every radiograph decoded and resized once, in one memory-mapped array."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pneumo.cache import Array, Recipe, find_or_build
from pneumo.data.duplicates import SIDE, VERSION, group_duplicates
from pneumo.data.images import DECODER, decode
from pneumo.data.index import Radiograph, file_path
from pneumo.hardware import keep_freed_memory

_BLOCK = 32  # images that a worker hands over at once


class RadiographDataset(Dataset[dict[str, Any]]):
    """Radiographs as samples: input (1, size, size) uint8, label, and index, the position in the list."""

    def __init__(self, root: Path, radiographs: Sequence[Radiograph], image_size: int, crop_pct: float = 1.0) -> None:
        """Take the radiographs, whose paths are relative to `root`, and how `decode` is to size and crop them."""
        self.root = root
        self.radiographs = radiographs
        self.image_size, self.crop_pct = image_size, crop_pct

    def __len__(self) -> int:
        """Give the number of radiographs."""
        return len(self.radiographs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Decode one radiograph."""
        radiograph = self.radiographs[index]
        path = file_path(self.root, radiograph.path)
        image = torch.from_numpy(decode(path, self.image_size, self.crop_pct).copy())
        return {"input": image.unsqueeze(0), "label": radiograph.label, "index": index}


def prepare_worker(number: int) -> None:
    """Have a worker process keep the memory of one image for the next; without that, decoding takes twice as long."""
    keep_freed_memory()


def decode_all(
    root: Path,
    radiographs: Sequence[Radiograph],
    image_size: int,
    workers: int,
    content: str,
    cache: Path,
    crop_pct: float = 1.0,
) -> Array:
    """Open the array of all decoded radiographs, (N, 1, image_size, image_size) uint8, after making it if need be.

    Args:
        root: What the radiographs' paths are relative to.
        radiographs: The index, which gives the array's order.
        image_size: Height and width to resize them to.
        workers: Processes that decode; 0 is this one.
        content: Hash of what the files hold; see `pneumo.data.manifest.content_hash`.
        cache: The folder of all caches.
        crop_pct: What of height and width to keep of them; see `decode`.

    Raises:
        DataError: A file cannot be decoded.
        CacheError: The disk is full or cannot be written.
    """
    recipe = decoded_recipe(len(radiographs), image_size, content, crop_pct)
    dataset = RadiographDataset(root, radiographs, image_size, crop_pct)
    return find_or_build(cache, recipe, lambda start: decoded_blocks(dataset, start, _BLOCK, workers))


def decoded_recipe(images: int, image_size: int, content: str, crop_pct: float) -> Recipe:
    """Give what the array of `decode_all` is computed from."""
    about = {"data": content, "images": images, "image_size": image_size, "crop_pct": crop_pct}
    return Recipe(
        kind="images",
        about={**about, "decoder": DECODER},
        shape=(images, 1, image_size, image_size),
        dtype="uint8",
        doing="Decoding images",
    )


def find_twins(
    root: Path, radiographs: Sequence[Radiograph], workers: int, content: str, cache: Path | None
) -> list[int]:
    """Give for each radiograph the number of its group of near duplicates, (N,); see `group_duplicates`.

    The arguments are those of `decode_all`. What is found is kept in `cache`, or, without one, nowhere.

    Raises:
        DataError: A file cannot be decoded.
        CacheError: The disk is full or cannot be written.
    """
    if cache is None:
        with tempfile.TemporaryDirectory() as folder:
            return find_twins(root, radiographs, workers, content, Path(folder))

    def blocks(start: int) -> Iterator[Array]:
        yield group_duplicates(np.asarray(decode_all(root, radiographs, SIDE, workers, content, cache)[:, 0]))

    about = {"data": content, "images": len(radiographs), "decoder": DECODER, "version": VERSION}
    recipe = Recipe("duplicates", about, (len(radiographs),), "int64", "Looking for near duplicates")
    groups: list[int] = find_or_build(cache, recipe, blocks).tolist()
    return groups


def decoded_blocks(dataset: RadiographDataset, start: int, size: int, workers: int) -> Iterator[Array]:
    """Decode radiographs from position `start` on, in blocks (size, 1, H, W) uint8, by several processes."""
    loader = DataLoader(
        dataset,
        batch_size=size,
        sampler=range(start, len(dataset)),
        num_workers=workers,
        worker_init_fn=prepare_worker,
        generator=torch.Generator(),  # else it would draw from the global one
    )
    for batch in loader:
        yield batch["input"].numpy()
