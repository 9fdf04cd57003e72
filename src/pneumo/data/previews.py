"""Images of a data module as networks receive them, for figures."""

from collections.abc import Sequence

import numpy as np
import torch

from pneumo.common.array_cache import Array, find
from pneumo.data.batches import training_order
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.image_cache import decoded_recipe
from pneumo.data.index import Radiograph, file_path, indices_of
from pneumo.data.radiograph import decode


def load_images(data: ChestXrayDataModule, chosen: Sequence[Radiograph]) -> Array:
    """Return radiographs as `decode` does, (n, H, W) uint8: from the decoded-image cache if it is there."""
    images = data.images
    if images is None and data.features is not None:  # the images that they come from may still be cached
        recipe = decoded_recipe(len(data.radiographs), data.image_size, data.content_hash, data.crop_pct)
        images = find(data.cache_dir, recipe)
    if images is None:
        return np.stack([decode(file_path(data.root, image.path), data.image_size, data.crop_pct) for image in chosen])
    films: Array = images[indices_of(chosen, data.radiographs), 0]
    return films


def first_batch(data: ChestXrayDataModule, processes: int, count: int) -> tuple[list[Radiograph], Array]:
    """Return the first images of a run's first training batch, and the network's input from them, (n, H, W) uint8.

    These are at most `count` images of the first of `processes`; where its input is features, those behind them.
    Loaders and random streams stay untouched.
    """
    order = training_order(data.splits["train"], 0, processes, data.seed, epoch=0)
    index = torch.tensor(list(order)[: min(count, data.batch_size)])
    batch = [data.splits["train"][i] for i in index.tolist()]
    films = load_images(data, batch)
    if not data.augmentation.active:
        return batch, films
    seed = data.seed * 100_000  # the first epoch's
    if data.features is None or data.views is None:
        numbers = data.augmentation.draw(len(data.splits["train"]), seed)[index]
    else:
        pool = len(data.trainable)
        rows = data.part("train", data.features).choose(seed)[index].tolist()  # view after view
        numbers = torch.stack([data.augmentation.draw(pool, row // pool)[row % pool] for row in rows])
    return batch, data.augmentation(torch.from_numpy(films[:, None]), numbers)[:, 0].numpy()
