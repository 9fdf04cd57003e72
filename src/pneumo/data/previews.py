"""Images of a data module as inputs of the network, for figures."""

from collections.abc import Sequence

import numpy as np
import torch

from pneumo.common.array_cache import Array, find
from pneumo.data.batches import training_order
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.image_cache import decoded_recipe
from pneumo.data.index import Radiograph, file_path, indices_of
from pneumo.data.radiograph import decode


def load_images(data: ChestXrayDataModule, radiographs: Sequence[Radiograph]) -> Array:
    """Load radiographs, (n, H, W) uint8, from the decoded-image cache or, without it, with `decode`."""
    images = data.images
    if images is None and data.features is not None:  # the decoded images may still be cached
        recipe = decoded_recipe(len(data.radiographs), data.input_format, data.content_hash)
        images = find(data.cache_dir, recipe)
    if images is None:
        paths = [file_path(data.root, radiograph.path) for radiograph in radiographs]
        return np.stack([decode(path, data.input_format) for path in paths])
    loaded: Array = images[indices_of(radiographs, data.radiographs), 0]
    return loaded


def first_batch(data: ChestXrayDataModule, world_size: int, count: int) -> tuple[list[Radiograph], Array]:
    """Return the first images of a run's first training batch and their augmented pixels, (n, H, W) uint8.

    They are at most `count` images of the first of `world_size` processes. If the network uses cached features, the
    images of these features are returned. Data loaders and random generators are not affected.
    """
    order = training_order(data.splits["train"], 0, world_size, data.seed, epoch=0)
    index = torch.tensor(list(order)[: min(count, data.batch_size)])
    batch = [data.splits["train"][i] for i in index.tolist()]
    images = load_images(data, batch)
    if not data.augmentation.active:
        return batch, images
    seed = data.seed * 100_000  # of the first epoch
    if data.features is None or data.views is None:
        numbers = data.augmentation.draw(len(data.splits["train"]), seed)[index]
    else:
        pool = len(data.non_test_indices)
        rows = data.split_rows("train", data.features).sample_rows(seed)[index].tolist()  # rows are ordered by view
        numbers = torch.stack([data.augmentation.draw(pool, row // pool)[row % pool] for row in rows])
    return batch, data.augmentation(torch.from_numpy(images[:, None]), numbers)[:, 0].numpy()
