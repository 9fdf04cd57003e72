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


def given_to_the_network(data: ChestXrayDataModule) -> dict[str, torch.Tensor]:
    """Give what comes first in the first epoch's first batch."""
    data.trainer = SimpleNamespace(training=True, current_epoch=0, global_rank=0, world_size=1)  # type: ignore[assignment] # a stand-in
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    return {name: values[:5] for name, values in batch.items()}


@pytest.mark.parametrize("augmentation", [OPTIONS["augmentation"], STRONG])
@pytest.mark.parametrize("cached", [False, True])
def test_the_batch_is_the_first_that_the_network_is_given(
    cached: bool, augmentation: Augmentation, phantoms: Path, tmp_path: Path
) -> None:
    data = open_data(phantoms, augmentation=augmentation, cache=True, cache_dir=str(tmp_path), seed=3)
    if cached:
        data.open_images()
    stream = torch.get_rng_state()
    shown, films = first_batch(data, 1, 5)
    assert torch.equal(torch.get_rng_state(), stream)
    given = given_to_the_network(data)
    assert [image.label for image in shown] == given["label"].tolist()
    assert shown == [data.splits["train"][i] for i in given["index"].tolist()]
    np.testing.assert_array_equal(films, given["input"][:, 0].numpy())


@pytest.mark.parametrize("views", [0, 3])
def test_features_have_the_images_behind_them_shown(views: int, phantoms: Path, tmp_path: Path) -> None:
    augmentation = STRONG if views else OPTIONS["augmentation"]
    options = {"augmentation": augmentation, "cache": True, "cache_dir": str(tmp_path), "split": "patient"}
    data = open_data(phantoms, val_fraction=0.5, **options)
    data.open_images()
    assert data.images is not None
    images, pool = torch.from_numpy(np.array(data.images)), data.trainable
    seen = [augmentation(images[pool], augmentation.draw(len(pool), view)) for view in range(views)]
    # Features that are the pixels themselves.
    data.serve(images.flatten(1).numpy(), torch.cat(seen).flatten(1).numpy() if views else None)
    _, films = first_batch(data, 1, 5)
    np.testing.assert_array_equal(films.reshape(5, -1), given_to_the_network(data)["input"].numpy())


def test_films_come_from_their_files_where_the_cache_is_gone(phantoms: Path, tmp_path: Path) -> None:
    data = open_data(phantoms, crop_pct=0.8)
    plain = load_images(data, data.splits["test"][3:6])
    data.serve(np.zeros((len(data.radiographs), 2)))
    np.testing.assert_array_equal(load_images(data, data.splits["test"][3:6]), plain)
    assert plain.shape == (3, 24, 24)
