import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.data_modules import open_data
from hypothesis import given
from hypothesis import strategies as st

from pneumo.data.batches import ArrayBatches, BatchIndices, SplitRows, merge_single_image


def test_cached_batches_equal_decoded_batches(phantoms: Path, tmp_path: Path) -> None:
    plain, cached = open_data(phantoms), open_data(phantoms, cache=True, cache_dir=str(tmp_path), num_workers=2)
    cached.open_images()
    for name in ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"):
        pairs = zip(getattr(plain, name)(), getattr(cached, name)(), strict=True)
        for one, other in pairs:
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
    assert isinstance(cached.train_dataloader(), ArrayBatches)


def test_all_splits_use_the_same_cache(phantoms: Path, tmp_path: Path) -> None:
    for options in (
        {},
        {"split": "patient", "val_fraction": 0.5},
        {"split": "patient", "val_fraction": 0.5, "seed": 1},
        {"crop_pct": 0.75},
    ):
        data = open_data(phantoms, cache=True, cache_dir=str(tmp_path), **options)
        data.open_images()
        plain = open_data(phantoms, **options)
        cached, decoded = next(iter(data.val_dataloader())), next(iter(plain.val_dataloader()))
        assert torch.equal(cached["input"], decoded["input"])
    recipes = [json.loads(path.read_text()) for path in (tmp_path / "images").glob("*/about.json")]
    sizes = sorted((about["image_size"], about["crop_pct"]) for about in recipes)
    assert sizes == [(24, 0.75), (24, 1.0), (64, 1.0)]  # 64: for the search for near-duplicates


def test_an_epoch_draws_one_view_of_each_image() -> None:
    array = np.arange(30, dtype=np.float32)[:, None]  # 3 views of 10 images
    split_rows = SplitRows(array, torch.arange(10) + 10 * torch.arange(3)[:, None], torch.zeros(10))

    def epoch(seed: int) -> list[float]:
        batches = ArrayBatches(split_rows, BatchIndices(range(10), 4, merge_single=False), seed, pin=False)
        assert [len(batch["label"]) for batch in batches] == [4, 4, 2]
        return torch.cat([batch["input"] for batch in batches])[:, 0].tolist()

    assert [value % 10 for value in epoch(0)] == list(range(10))
    assert epoch(0) == epoch(0) != epoch(1)
    assert {value // 10 for seed in range(5) for value in epoch(seed)} == {0, 1, 2}


def test_features_have_views_for_training_only(phantoms: Path) -> None:
    data = open_data(phantoms, split="patient", val_fraction=0.5)
    paths = [radiograph.path for radiograph in data.radiographs]
    pool = data.non_test_indices
    plain = np.arange(len(paths), dtype=np.float32)[:, None]
    views = np.concatenate([plain[pool], 1000 + plain[pool]])
    data.use_features(plain, views)
    for name, split in (("train", "train"), ("val", "val"), ("test", "test")):
        loader = getattr(data, f"{name}_dataloader")()
        for batch in loader:
            inputs = [paths[int(value) % 1000] for value in batch["input"][:, 0]]
            assert inputs == [data.splits[split][i].path for i in batch["index"]]
            assert batch["label"].tolist() == [data.splits[split][i].label for i in batch["index"]]
            if split != "train":
                assert (batch["input"] < 1000).all()


@pytest.mark.parametrize("cache", [False, True])
def test_image_blocks_still_return_images_after_features_replace_images(
    cache: bool, phantoms: Path, tmp_path: Path
) -> None:
    data = open_data(phantoms, cache=cache, cache_dir=str(tmp_path))
    before = torch.cat(list(data.image_blocks([2, 0, 1], 2)))
    data.use_features(np.zeros((len(data.radiographs), 7), np.float32))
    data.open_images()
    assert (data.images is not None) == cache
    after = list(data.image_blocks([2, 0, 1], 2))
    assert [len(block) for block in after] == [2, 1]
    assert torch.equal(torch.cat(after), before)


@given(st.integers(0, 70), st.integers(2, 33))
def test_only_a_last_batch_of_one_index_is_merged(images: int, size: int) -> None:
    order = list(range(images))[::-1]
    plain, joined = (BatchIndices(order, size, merge_single=join) for join in (False, True))
    assert list(plain) == [order[start : start + size] for start in range(0, images, size)]
    assert [index for batch in joined for index in batch] == order
    assert (len(plain), len(joined)) == (len(list(plain)), len(list(joined)))
    if images % size != 1 or images == 1:
        assert list(joined) == list(plain)
    else:
        assert [len(batch) for batch in joined] == [size] * (images // size - 1) + [size + 1]
    blocks = (torch.tensor(batch) for batch in plain)
    assert [block.tolist() for block in merge_single_image(blocks)] == list(joined)


@pytest.mark.parametrize("workers", [0, 2])
def test_merged_batches_from_the_cache_equal_those_from_files(workers: int, phantoms: Path, tmp_path: Path) -> None:
    modules = [open_data(phantoms, batch_size=21), open_data(phantoms, batch_size=21, num_workers=workers)]  # 64 images
    modules.append(open_data(phantoms, batch_size=21, cache=True, cache_dir=str(tmp_path)))
    modules[-1].open_images()
    for data in modules:
        data.merge_single_image()
        loader: Any = data.train_dataloader()
        loader.batch_sampler.sampler.set_epoch(1)  # as Lightning does
        assert len(loader) == 3
    batches = [list(data.train_dataloader()) for data in modules]
    assert [len(batch["label"]) for batch in batches[0]] == [21, 21, 22]
    for one, *others in zip(*batches, strict=True):
        assert all(torch.equal(one[name], other[name]) for other in others for name in one)
    assert [len(batch["label"]) for batch in modules[0].val_dataloader()] == [16]
    single = open_data(phantoms, batch_size=5)  # 16 validation images
    single.merge_single_image()
    assert [len(batch["label"]) for batch in single.val_dataloader()] == [5, 5, 5, 1]


@pytest.mark.parametrize("size", [10, 5, 3])
def test_a_batch_does_not_share_memory_with_the_cache(size: int) -> None:
    array = np.zeros((10, 1), np.float32)
    split_rows = SplitRows(array, torch.arange(10)[None], torch.zeros(10))
    for batch in ArrayBatches(split_rows, BatchIndices(range(10), size, merge_single=False), 0, pin=False):
        batch["input"] += 1
    assert not array.any()
