"""Checks on the real radiographs."""

import csv
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers import reference_metrics
from helpers.commands import Compose

from pneumo.common.input_format import InputFormat
from pneumo.data.image_cache import RadiographDataset, content_hash, find_near_duplicates
from pneumo.data.index import index_radiographs
from pneumo.data.splits import split_radiographs
from pneumo.models.classifier import Classifier
from pneumo.training.components import build
from pneumo.training.run import run

pytestmark = pytest.mark.real


def test_the_official_split_is_complete() -> None:
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


@pytest.mark.parametrize("split", ["patient", "kfold"])
def test_splits_have_no_common_patient_or_duplicate_and_equal_fractions_of_subtypes(split: str, tmp_path: Path) -> None:
    root = Path(os.environ["PNEUMO_DATA_ROOT"])
    images = index_radiographs(root, ["NORMAL", "PNEUMONIA"])
    groups = find_near_duplicates(
        RadiographDataset(root, images, InputFormat(64)), 2, content_hash(root, images, tmp_path), tmp_path
    )
    sizes = [size for size in Counter(groups).values() if size > 1]
    assert (len(sizes), sum(sizes)) == (30, 62)  # groups of byte-identical files
    group_of = {image.path: number for image, number in zip(images, groups, strict=True)}
    for seed in range(50):
        splits = split_radiographs(images, split, 0.1, seed, 5, seed % 5, groups)
        train, val = splits["train"], splits["val"]
        assert not {image.patient for image in train} & {image.patient for image in val}
        assert not {group_of[image.path] for image in train} & {group_of[image.path] for image in val}
        for subtype in ("none", "bacterial", "viral"):
            fractions = [sum(image.subtype == subtype for image in part) / len(part) for part in (train, val)]
            assert fractions[0] == pytest.approx(fractions[1], abs=0.02)


@pytest.mark.parametrize(
    ("model", "batches", "size"), [("xraychestnet", 60, 64), ("efficientnet_lite0", 20, 224)], ids=["scratch", "frozen"]
)
def test_a_part_of_an_epoch_suffices_to_rank_the_test_images(
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
    assert int(results["test_true_positives"]) + int(results["test_false_negatives"]) == 390
    assert float(results["test_auroc"]) > 0.8  # chance is 0.5; whole runs reach 0.95


def test_twenty_epochs_on_cached_features_agree_with_predictions_from_images(
    compose_run: Compose, tmp_path: Path
) -> None:
    options = ["model=efficientnet_lite0", "optimizer=adam", f"data.root={os.environ['PNEUMO_DATA_ROOT']}"]
    options += ["data.image_size=224", "data.batch_size=32", "data.num_workers=null"]
    results = run(compose_run(*options))
    assert (results["epochs"], results["feature_cache"], results["collapsed"]) == (20, True, False)
    assert float(results["test_auroc"]) >= 0.955
    reference_metrics.check_results(results, tmp_path / "run")
    classifier = Classifier.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt").eval()
    data = build(compose_run(*options, folder="other")).datamodule
    data.open_images()
    with torch.inference_mode():
        found = torch.cat([classifier.predict_step(batch, 0)[:, 1] for batch in data.predict_dataloader()])
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        written = torch.tensor([float(row["probability"]) for row in csv.DictReader(file)])
    assert len(written) == 624
    torch.testing.assert_close(found, written, atol=1e-4, rtol=0)
