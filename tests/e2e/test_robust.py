"""The robust experiment on phantoms: calibration and reproducibility."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import Compose
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from pneumo.data.index import indices_of
from pneumo.errors import ConfigError
from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import fit_head
from pneumo.training.components import build
from pneumo.training.run import run

ROBUST = ("experiment=robust", "model=efficientnet_lite0", "epochs=2", "data.val_fraction=0.3")
SCRATCH = ("experiment=robust", "model=xraychestnet", "epochs=3", "data.val_fraction=0.3", "data.image_size=32")


class StopAfterTwo(Callback):
    """Stop training after the second epoch, as a signal would."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


def read_probabilities(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    probability = np.array([row["probability"] for row in rows], np.float32)
    return probability, np.array([row["label"] == "PNEUMONIA" for row in rows])


@pytest.fixture
def robust(compose_run: Compose, tmp_path: Path) -> Path:
    run(compose_run(*ROBUST))
    return tmp_path / "run"


@pytest.mark.slow
def test_calibration_uses_held_out_patients_and_is_stored_in_the_checkpoint(robust: Path, compose_run: Compose) -> None:
    results = json.loads((robust / "results.json").read_text())
    assert (results["split"], results["fold"], results["threshold_rule"]) == ("patient", -1, "sensitivity")
    probability, positive = read_probabilities(robust / "validation.csv")
    predicted = probability > results["threshold"]
    assert predicted[positive].mean() >= 0.95
    assert (probability[positive] > probability[positive & predicted].min()).mean() < 0.95
    assert results["val_sensitivity"] == pytest.approx(predicted[positive].mean())
    assert results["val_specificity"] == pytest.approx(1 - predicted[~positive].mean())
    assert results["val_accuracy"] == pytest.approx((predicted == positive).mean())
    assert results["temperature"] != 1
    probability, positive = read_probabilities(robust / "predictions.csv")
    assert results["test_accuracy"] == pytest.approx(((probability > results["threshold"]) == positive).mean())

    classifier = Classifier.load_from_checkpoint(robust / "checkpoints" / "best.ckpt").eval()
    assert classifier.hparams["threshold"] == results["threshold"]
    data = build(compose_run(*ROBUST, folder="other")).datamodule
    with torch.inference_mode():
        computed = torch.cat([classifier.predict_step(batch, 0)[:, 1] for batch in data.predict_dataloader()]).numpy()
        batches = list(data.val_dataloader())  # shuffled
        held_out = torch.cat([classifier.predict_step(batch, 0)[:, 1] for batch in batches]).numpy()
    np.testing.assert_allclose(computed, probability, atol=1e-6, rtol=0)
    index = torch.cat([batch["index"] for batch in batches]).numpy()
    np.testing.assert_allclose(held_out, read_probabilities(robust / "validation.csv")[0][index], atol=1e-6, rtol=0)


def test_the_head_is_initialized_by_a_logistic_regression(compose_run: Compose, tmp_path: Path) -> None:
    run(compose_run(*ROBUST, "fine_tuning.warm_up=true", "optimizer.lr=1e-12", "epochs=1"))
    weight = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]["head.weight"]
    components = build(compose_run(*ROBUST, folder="other"))
    data, classifier = components.datamodule, components.classifier
    indices = indices_of(data.splits["train"], data.radiographs)
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0)).tolist()
    classifier.backbone.train()
    with torch.inference_mode():
        blocks = data.image_blocks([indices[i] for i in order], 16)
        features = torch.cat([classifier.backbone(block) for block in blocks]).numpy()
    label = np.array([data.splits["train"][i].label for i in order])
    fit_head(classifier.head, features, label, balance=True)
    torch.testing.assert_close(weight, classifier.head.weight, atol=1e-4, rtol=1e-2)


@pytest.mark.slow
def test_a_resumed_run_with_averaged_weights_is_bit_identical(compose_run: Compose, tmp_path: Path) -> None:
    run(compose_run(*SCRATCH, folder="whole"))
    stopped = compose_run(*SCRATCH, folder="stopped")
    components = build(stopped)
    components.trainer.callbacks.append(StopAfterTwo())  # type: ignore[attr-defined] # set by Lightning
    with pytest.raises(SystemExit):
        components.trainer.fit(components.classifier, datamodule=components.datamodule)
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    run(compose_run(*SCRATCH, f"ckpt_path={last}", folder="stopped"))
    for name in ("predictions.csv", "validation.csv", "splits.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "stopped")]
    assert results[0]["threshold"] == results[1]["threshold"]


def test_checkpoints_contain_the_average_and_the_weights_of_the_last_step(compose_run: Compose, tmp_path: Path) -> None:
    run(compose_run(*SCRATCH))
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    name = "head.weight"
    assert not torch.equal(checkpoint["state_dict"][name], checkpoint["current_model_state"][name])
    assert checkpoint["averaging_state"]["n_averaged"] == 3 * 4


@pytest.mark.parametrize("model", [pytest.param("vgg16", marks=pytest.mark.slow), "resnext", "googlenet", "timm"])
def test_every_model_trains_in_the_robust_experiment(model: str, compose_run: Compose) -> None:
    cfg = compose_run("experiment=robust", f"model={model}", "model.weights=null", "data.image_size=64")
    cfg.trainer.fast_dev_run = 1
    components = build(cfg)
    components.trainer.fit(components.classifier, datamodule=components.datamodule)
    assert components.trainer.global_step == 1


def test_the_subtype_task_has_three_classes(compose_run: Compose, tmp_path: Path) -> None:
    options = ("data.task=subtype", "optimizer=adam", "epochs=2")
    results = run(compose_run(*options))
    assert results["task"] == "subtype"
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    classes = ["NORMAL", "BACTERIAL", "VIRAL"]
    margins = [f"logit_margin_{name}" for name in classes]
    assert list(rows[0]) == ["path", "label", "probability", "prediction", *classes, *margins]
    for row in rows:
        probabilities = [float(row[name]) for name in classes]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == pytest.approx(probabilities[1] + probabilities[2], abs=1e-6)
        assert row["prediction"] == classes[int(np.argmax(probabilities))]
        assert ("virus" in row["path"]) == (row["label"] == "VIRAL")
    assert results["test_accuracy"] == pytest.approx(np.mean([row["label"] == row["prediction"] for row in rows]))


def test_incompatible_settings_raise_an_error(compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"data\.fold=7"):
        build(compose_run("data.split=kfold", "data.fold=7"))
    with pytest.raises(ConfigError, match=r"decision\.threshold=best must be fixed, youden"):
        build(compose_run("decision.threshold=best"))
    with pytest.raises(ConfigError, match=r"features\.cache=true is not possible: decision\.flip=true"):
        run(compose_run("model=timm", "model.weights=null", "features.cache=true", "decision.flip=true"))
    with pytest.raises(ConfigError, match=r"scheduler.*warm_up=2"):
        build(compose_run("scheduler=one_cycle", "scheduler.warm_up=2"))
