from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.data_modules import OPTIONS, open_data

from pneumo.data.augmentation import Augmentation
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.previews import first_batch, load_images

STRONG = Augmentation(rotation=20, shift=0.1, zoom=0.2, flip=0.5, brightness=0.1, contrast=0.2)


def first_inputs(data: ChestXrayDataModule) -> dict[str, torch.Tensor]:
    """Return the first five samples of the first training batch."""
    data.trainer = SimpleNamespace(training=True, current_epoch=0, global_rank=0, world_size=1)  # type: ignore[assignment] # a stand-in
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    return {name: values[:5] for name, values in batch.items()}


@pytest.mark.parametrize("augmentation", [OPTIONS["augmentation"], STRONG])
@pytest.mark.parametrize("cached", [False, True])
def test_the_first_batch_equals_the_input_of_the_network(
    cached: bool, augmentation: Augmentation, phantoms: Path, tmp_path: Path
) -> None:
    data = open_data(phantoms, augmentation=augmentation, cache=True, cache_dir=str(tmp_path), seed=3)
    if cached:
        data.open_images()
    state = torch.get_rng_state()
    radiographs, images = first_batch(data, 1, 5)
    assert torch.equal(torch.get_rng_state(), state)
    batch = first_inputs(data)
    assert [radiograph.label for radiograph in radiographs] == batch["label"].tolist()
    assert radiographs == [data.splits["train"][i] for i in batch["index"].tolist()]
    np.testing.assert_array_equal(images, batch["input"][:, 0].numpy())


@pytest.mark.parametrize("views", [0, 3])
def test_with_features_the_first_batch_shows_their_images(views: int, phantoms: Path, tmp_path: Path) -> None:
    augmentation = STRONG if views else OPTIONS["augmentation"]
    options = {"augmentation": augmentation, "cache": True, "cache_dir": str(tmp_path), "split": "patient"}
    data = open_data(phantoms, val_fraction=0.5, **options)
    data.open_images()
    assert data.images is not None
    images, pool = torch.from_numpy(np.array(data.images)), data.non_test_indices
    augmented = [augmentation(images[pool], augmentation.draw(len(pool), view)) for view in range(views)]
    # The features are the pixels themselves.
    data.use_features(images.flatten(1).numpy(), torch.cat(augmented).flatten(1).numpy() if views else None)
    _, first = first_batch(data, 1, 5)
    np.testing.assert_array_equal(first.reshape(5, -1), first_inputs(data)["input"].numpy())


def test_images_are_read_from_files_without_the_cache(phantoms: Path, tmp_path: Path) -> None:
    data = open_data(phantoms, crop_pct=0.8)
    plain = load_images(data, data.splits["test"][3:6])
    data.use_features(np.zeros((len(data.radiographs), 2)))
    np.testing.assert_array_equal(load_images(data, data.splits["test"][3:6]), plain)
    assert plain.shape == (3, 24, 24)
