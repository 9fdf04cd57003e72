import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support import module

from pneumo.data.batches import ArrayBatches, BatchIndices, Part


def test_cached_batches_are_those_that_are_decoded_on_the_way(phantoms: Path, tmp_path: Path) -> None:
    plain, cached = module(phantoms), module(phantoms, cache=True, cache_dir=str(tmp_path), num_workers=2)
    cached.open_images()
    for name in ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"):
        pairs = zip(getattr(plain, name)(), getattr(cached, name)(), strict=True)
        for one, other in pairs:
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
    assert isinstance(cached.train_dataloader(), ArrayBatches)


def test_the_cache_serves_any_split(phantoms: Path, tmp_path: Path) -> None:
    for options in (
        {},
        {"split": "patient", "val_fraction": 0.5},
        {"split": "patient", "val_fraction": 0.5, "seed": 1},
        {"crop_pct": 0.75},
    ):
        data = module(phantoms, cache=True, cache_dir=str(tmp_path), **options)
        data.open_images()
        plain = module(phantoms, **options)
        ours, theirs = next(iter(data.val_dataloader())), next(iter(plain.val_dataloader()))
        assert torch.equal(ours["input"], theirs["input"])
    kept = [json.loads(path.read_text()) for path in (tmp_path / "images").glob("*/about.json")]
    found = sorted((about["image_size"], about["crop_pct"]) for about in kept)
    assert found == [(24, 0.75), (24, 1.0), (64, 1.0)]  # 64: in which near duplicates are looked for


def test_an_epoch_draws_one_view_of_each_image() -> None:
    array = np.arange(30, dtype=np.float32)[:, None]  # 3 views of 10 images
    part = Part(array, torch.arange(10) + 10 * torch.arange(3)[:, None], torch.zeros(10))

    def epoch(seed: int) -> list[float]:
        batches = ArrayBatches(part, BatchIndices(range(10), 4, join_single=False), seed, pin=False)
        assert [len(batch["label"]) for batch in batches] == [4, 4, 2]
        return torch.cat([batch["input"] for batch in batches])[:, 0].tolist()

    assert [value % 10 for value in epoch(0)] == list(range(10))
    assert epoch(0) == epoch(0) != epoch(1)
    assert {value // 10 for seed in range(5) for value in epoch(seed)} == {0, 1, 2}


def test_features_are_served_with_views_for_training_only(phantoms: Path) -> None:
    data = module(phantoms, split="patient", val_fraction=0.5)
    paths = [radiograph.path for radiograph in data.radiographs]
    pool = data.trainable
    plain = np.arange(len(paths), dtype=np.float32)[:, None]
    views = np.concatenate([plain[pool], 1000 + plain[pool]])
    data.serve(plain, views)
    for name, split in (("train", "train"), ("val", "val"), ("test", "test")):
        loader = getattr(data, f"{name}_dataloader")()
        for batch in loader:
            found = [paths[int(value) % 1000] for value in batch["input"][:, 0]]
            assert found == [data.splits[split][i].path for i in batch["index"]]
            assert batch["label"].tolist() == [data.splits[split][i].label for i in batch["index"]]
            if split != "train":
                assert (batch["input"] < 1000).all()


@pytest.mark.parametrize("size", [10, 5, 3])
def test_a_batch_does_not_share_memory_with_the_cache(size: int) -> None:
    array = np.zeros((10, 1), np.float32)
    part = Part(array, torch.arange(10)[None], torch.zeros(10))
    for batch in ArrayBatches(part, BatchIndices(range(10), size, join_single=False), 0, pin=False):
        batch["input"] += 1
    assert not array.any()
