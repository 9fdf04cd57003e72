"""Runs that share cached images and features."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from helpers.commands import ROOT, Compose, train_with
from helpers.configurations import run_composer
from typer.testing import CliRunner

from pneumo.cli import app
from pneumo.errors import ConfigError
from pneumo.models.classifier import Classifier
from pneumo.training import backbone_pass, feature_cache
from pneumo.training.components import build
from pneumo.training.run import run

LITE0 = ("model=efficientnet_lite0", "optimizer=adam", "trainer.max_epochs=3")
AUGMENTED = (*LITE0, "augment=light", "features.views=3")


class OwnSGD(torch.optim.SGD):
    """User-defined optimizer."""


def probabilities(folder: Path) -> npt.NDArray[np.float64]:
    with (folder / "predictions.csv").open(newline="") as file:
        return np.array([float(row["probability"]) for row in csv.DictReader(file)])


def arrays(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("array.npy"))}


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """Run folder with its caches, which tests must not modify."""
    folder = tmp_path_factory.mktemp("cached")
    with run_composer(folder, phantoms) as compose:
        run(compose(*LITE0, folder="cached"))
    return folder


@pytest.fixture(scope="module")
def augmented(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> bytes:
    """Content of predictions.csv of an uninterrupted run with cached features of augmented images."""
    folder = tmp_path_factory.mktemp("augmented")
    with run_composer(folder, phantoms) as compose:
        run(compose(*AUGMENTED))
    return (folder / "run" / "predictions.csv").read_bytes()


def test_cached_features_give_the_same_predictions_as_images(
    cached: Path, compose_run: Compose, tmp_path: Path
) -> None:
    shutil.copytree(cached, tmp_path, dirs_exist_ok=True)
    plain = run(compose_run(*LITE0, "features.cache=false", folder="plain"))
    neither = run(compose_run(*LITE0, "features.cache=false", "data.cache=false", folder="neither"))
    assert json.loads((cached / "cached" / "results.json").read_text())["feature_cache"] is True
    assert (plain["feature_cache"], neither["feature_cache"]) == (False, False)
    np.testing.assert_allclose(probabilities(tmp_path / "cached"), probabilities(tmp_path / "plain"), atol=1e-4, rtol=0)
    np.testing.assert_array_equal(probabilities(tmp_path / "plain"), probabilities(tmp_path / "neither"))
    listed = CliRunner().invoke(app, ["cache", "list", "--dir", str(tmp_path / "cache")], env={"COLUMNS": "200"})
    assert listed.exit_code == 0
    assert all(kind in listed.output for kind in ("images", "features", "means", "manifests"))


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [
        ("sgd", "32-true"),
        ("adam", "32-true"),
        pytest.param("adagrad", "32-true", marks=pytest.mark.slow),
        pytest.param("sgd", "bf16-mixed", marks=pytest.mark.slow),
    ],
)
def test_merged_batches_give_the_same_optimizer_steps(
    optimizer: str, precision: str, compose_run: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*LITE0, f"optimizer={optimizer}", f"trainer.precision={precision}", "data.batch_size=5")
    run(compose_run(*options, folder="merged"))
    monkeypatch.setattr(feature_cache, "_can_merge_steps", lambda *_: False)
    run(compose_run(*options, folder="single"))
    assert (tmp_path / "merged/predictions.csv").read_bytes() == (tmp_path / "single/predictions.csv").read_bytes()
    merged, single = (
        torch.load(tmp_path / name / "checkpoints" / "best.ckpt", weights_only=True) for name in ("merged", "single")
    )
    assert all(torch.equal(value, single["state_dict"][name]) for name, value in merged["state_dict"].items())
    assert merged["metrics"] == single["metrics"]


@pytest.mark.parametrize(
    ("option", "merged"),
    [
        ("epochs=20", True),
        ("+trainer.val_check_interval=1", False),
        ("+callbacks.last.every_n_train_steps=2", False),
        (f"optimizer._target_={__name__}.OwnSGD", False),
        ("optimizer._target_=torch.optim.LBFGS", False),
    ],
)
def test_batches_are_not_merged_if_single_steps_matter(option: str, merged: bool, compose_run: Compose) -> None:
    removed = ("~optimizer.momentum", "~optimizer.fused", "~optimizer.weight_decay") if "_target_" in option else ()
    components = build(compose_run(*LITE0[:1], option, *removed))
    datamodule = components.datamodule
    array = np.zeros((len(datamodule.radiographs), components.classifier.backbone.features), np.float32)
    feature_cache.serve_arrays(components, array, None)
    assert (datamodule.steps_per_batch > 1) == merged


def test_a_second_run_computes_no_features(
    cached: Path, compose_run: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(cached, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "cache" / "images")  # the features suffice
    monkeypatch.setattr(backbone_pass, "FeatureExtractor", None)
    run(compose_run(*LITE0, "optimizer=sgd", "seed=1", "data.split=patient", "data.val_fraction=0.5", folder="second"))
    assert len(list((tmp_path / "cache" / "features").glob("*/array.npy"))) == 1


def test_other_weights_images_and_sizes_use_separate_features(
    compose_run: Compose, tmp_path: Path, phantoms: Path
) -> None:
    root = shutil.copytree(phantoms, tmp_path / "data")
    image = next((root / "train" / "NORMAL").iterdir())
    shutil.copy(next((root / "train" / "PNEUMONIA").iterdir()), image)
    changes = ((), ("model.weights=null",), ("data.image_size=40",), (f"data.root={root}",), ("features.batch_size=3",))
    for number, change in enumerate(changes):
        cfg = compose_run(*LITE0, *change)
        feature_cache.serve_features(cfg, build(cfg))
        assert len(list((tmp_path / "cache" / "features").glob("*/array.npy"))) == number + 1


@pytest.mark.parametrize("cache", ["auto", pytest.param("false", marks=pytest.mark.slow)])
def test_augmented_runs_do_not_depend_on_the_number_of_workers(
    cache: str, augmented: bytes, compose_run: Compose, tmp_path: Path
) -> None:
    options = (*AUGMENTED, f"features.cache={cache}")
    predictions = [augmented] if cache == "auto" else []
    for workers in (2,) if predictions else (0, 2):
        folder = f"w{workers}"
        cache_dir = f"paths.cache_dir={tmp_path / folder / 'cache'}"
        run(compose_run(*options, f"data.num_workers={workers}", cache_dir, folder=folder))
        predictions.append((tmp_path / folder / "predictions.csv").read_bytes())
    assert predictions[0] == predictions[1]
    run(compose_run(*options, "augment=none", folder="none"))
    assert (tmp_path / "none" / "predictions.csv").read_bytes() != predictions[0]


def test_an_interrupted_run_on_augmented_features_resumes(
    augmented: bytes, compose_run: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_validation_epoch_end", stop_after(2))
        with pytest.raises(SystemExit):
            run(compose_run(*AUGMENTED))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] < 2
    run(compose_run(*AUGMENTED, f"ckpt_path={last}"))
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == augmented


def stop_after(epochs: int) -> Callable[[Classifier], None]:
    """Return a validation hook that logs metrics and sends SIGTERM to this process in the given epoch."""

    def hook(classifier: Classifier) -> None:
        classifier._log_metrics("val")
        if classifier.trainer.current_epoch + 1 == epochs:
            os.kill(os.getpid(), signal.SIGTERM)

    return hook


def test_features_do_not_depend_on_the_training_precision(compose_run: Compose, tmp_path: Path) -> None:
    options = (*LITE0, "augment=light", "features.views=2", "+trainer.gradient_clip_val=1")
    for precision in ("bf16-mixed", "32-true"):  # Lightning rejects gradient clipping with fused optimizers
        run(compose_run(*options, f"trainer.precision={precision}", folder=precision))
    mixed, single = (probabilities(tmp_path / precision) for precision in ("bf16-mixed", "32-true"))
    np.testing.assert_allclose(mixed, single, atol=0.05)
    assert len(list((tmp_path / "cache" / "features").glob("*/array.npy"))) == 2  # plain and augmented, for both runs


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")  # an incomplete epoch is not validated
def test_an_incomplete_epoch_has_training_metrics(compose_run: Compose) -> None:
    results = run(compose_run(*LITE0, "+trainer.max_steps=6"))
    assert 0 <= float(results["train_accuracy"]) <= 1


@pytest.mark.slow
def test_two_processes_share_the_caches_and_test_each_image_once(tmp_path: Path, phantoms: Path) -> None:
    command = [sys.executable, "train.py", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    command += [*LITE0, "augment=light", "features.views=2", "data.image_size=32", "data.batch_size=5"]
    command += [f"data.root={phantoms}", f"paths.output_dir={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (predictions,) = (path.read_text().splitlines()[1:] for path in tmp_path.rglob("predictions.csv"))
    assert len(predictions) == len(set(predictions)) == 32
    files = list((tmp_path / "cache").rglob("array.npy"))
    assert len(files) == 5  # images, and features and means with and without views


def test_runs_without_cacheable_features_fail_or_train_on_images(compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"features\.cache=true is not possible.*model\.freeze=true"):
        run(compose_run("features.cache=true"))
    with pytest.raises(ConfigError, match=r"features\.cache=maybe must be auto, true or false"):
        run(compose_run("features.cache=maybe"))
    with pytest.raises(ConfigError, match=r"features\.views=0"):
        run(compose_run("features.views=0"))
    limited = run(compose_run(*LITE0, "trainer.limit_train_batches=1", "trainer.max_epochs=1"))
    assert limited["feature_cache"] is False


@pytest.mark.slow
def test_a_cache_resumed_after_kills_is_bit_identical(phantoms: Path, tmp_path: Path, compose_run: Compose) -> None:
    options = [*LITE0, "trainer.max_epochs=1", "data.image_size=96", "data.num_workers=1", "features.batch_size=1"]
    run(compose_run(*options, f"paths.cache_dir={tmp_path / 'whole'}"))
    command = [
        *train_with("pneumo.common.array_cache.FLUSH_INTERVAL", 0.05),
        "trainer=cpu",
        *options,
        f"data.root={phantoms}",
    ]
    command += [f"paths.output_dir={tmp_path}", f"paths.cache_dir={tmp_path / 'killed'}"]
    for rows in (20, 60):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True) as process:
            while not any(int(path.read_text()) > rows for path in (tmp_path / "killed").glob("features/*/rows.txt")):
                assert process.poll() is None, "the process ended before it was killed"
                time.sleep(0.005)
            os.killpg(process.pid, signal.SIGKILL)
    last = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert re.search(r"Computing features .* resuming after [6-9]\d", last.stdout)
    assert arrays(tmp_path / "killed") == arrays(tmp_path / "whole")
