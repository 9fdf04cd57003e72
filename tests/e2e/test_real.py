"""Checks on the real radiographs."""

import csv
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from recompute import recompute
from support import Compose

from pneumo.data.index import index_radiographs
from pneumo.models.classifier import Classifier
from pneumo.training import build, run

pytestmark = pytest.mark.real


def test_the_official_split_is_found_whole() -> None:
    images = index_radiographs(Path(os.environ["PNEUMO_DATA_ROOT"]), ["NORMAL", "PNEUMONIA"])
    counts = Counter((image.split, image.label) for image in images)
    assert counts == {
        ("train", 0): 1341,
        ("train", 1): 3875,
        ("val", 0): 8,
        ("val", 1): 8,
        ("test", 0): 234,
        ("test", 1): 390,
    }


@pytest.mark.parametrize(
    ("model", "batches", "size"), [("xraychestnet", 60, 64), ("efficientnet_lite0", 20, 224)], ids=["scratch", "frozen"]
)
def test_a_part_of_an_epoch_already_ranks_the_test_images(
    model: str, batches: int, size: int, compose_run: Compose
) -> None:
    results = run(
        compose_run(
            f"model={model}",
            "optimizer=adam",
            f"data.root={os.environ['PNEUMO_DATA_ROOT']}",
            f"data.image_size={size}",
            "data.batch_size=32",
            "data.num_workers=null",
            f"trainer.limit_train_batches={batches}",
            "trainer.max_epochs=1",
        )
    )
    assert results["test_true_positives"] + results["test_false_negatives"] == 390
    assert results["test_auroc"] > 0.8  # chance is 0.5; whole runs reach 0.95


def test_the_studys_twenty_epochs_on_cached_features_and_the_same_from_images(
    compose_run: Compose, tmp_path: Path
) -> None:
    options = ("model=efficientnet_lite0", "optimizer=adam", f"data.root={os.environ['PNEUMO_DATA_ROOT']}")
    options += ("data.image_size=224", "data.batch_size=32", "data.num_workers=null")
    results = run(compose_run(*options))
    assert (results["epochs"], results["feature_cache"], results["collapsed"]) == (20, True, False)
    assert results["test_auroc"] >= 0.955  # type: ignore[operator] # a number
    for name, value in recompute(tmp_path / "run").items():
        assert results[name] == pytest.approx(value, abs=1e-6), name
    classifier = Classifier.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt").eval()
    data = build(compose_run(*options, folder="other")).datamodule
    data.open_images()
    with torch.inference_mode():
        found = torch.cat([classifier.predict_step(batch, 0) for batch in data.predict_dataloader()])
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        written = torch.tensor([float(row["probability"]) for row in csv.DictReader(file)])
    assert len(written) == 624
    torch.testing.assert_close(found, written, atol=1e-4, rtol=0)
