"""The robust experiment on phantoms: what it decides, and that it repeats itself."""

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
    """End training as a signal would, when the second epoch is over."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


def answers(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    probability = np.array([row["probability"] for row in rows], np.float32)
    return probability, np.array([row["label"] == "PNEUMONIA" for row in rows])


@pytest.fixture
def robust(compose_run: Compose, tmp_path: Path) -> Path:
    run(compose_run(*ROBUST))
    return tmp_path / "run"


@pytest.mark.slow
def test_decisions_are_made_on_held_out_patients_and_kept_in_the_checkpoint(robust: Path, compose_run: Compose) -> None:
    results = json.loads((robust / "results.json").read_text())
    assert (results["split"], results["fold"], results["threshold_rule"]) == ("patient", -1, "sensitivity")
    probability, positive = answers(robust / "validation.csv")
    called = probability > results["threshold"]
    assert called[positive].mean() >= 0.95
    assert (probability[positive] > probability[positive & called].min()).mean() < 0.95
    assert results["val_sensitivity"] == pytest.approx(called[positive].mean())
    assert results["val_specificity"] == pytest.approx(1 - called[~positive].mean())
    assert results["val_accuracy"] == pytest.approx((called == positive).mean())
    assert results["temperature"] != 1
    probability, positive = answers(robust / "predictions.csv")
    assert results["test_accuracy"] == pytest.approx(((probability > results["threshold"]) == positive).mean())

    classifier = Classifier.load_from_checkpoint(robust / "checkpoints" / "best.ckpt").eval()
    assert classifier.hparams["threshold"] == results["threshold"]
    data = build(compose_run(*ROBUST, folder="other")).datamodule
    with torch.inference_mode():
        found = torch.cat([classifier.predict_step(batch, 0)[:, 1] for batch in data.predict_dataloader()]).numpy()
        batches = list(data.val_dataloader())  # shuffled
        held_out = torch.cat([classifier.predict_step(batch, 0)[:, 1] for batch in batches]).numpy()
    np.testing.assert_allclose(found, probability, atol=1e-6, rtol=0)
    index = torch.cat([batch["index"] for batch in batches]).numpy()
    np.testing.assert_allclose(held_out, answers(robust / "validation.csv")[0][index], atol=1e-6, rtol=0)


def test_the_head_begins_where_a_logistic_regression_ends(compose_run: Compose, tmp_path: Path) -> None:
    run(compose_run(*ROBUST, "fine_tuning.warm_up=true", "optimizer.lr=1e-12", "epochs=1"))
    found = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]["head.weight"]
    components = build(compose_run(*ROBUST, folder="other"))
    data, classifier = components.datamodule, components.classifier
    places = indices_of(data.splits["train"], data.radiographs)
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0)).tolist()
    classifier.backbone.train()
    with torch.inference_mode():
        blocks = data.image_blocks([places[i] for i in order], 16)
        features = torch.cat([classifier.backbone(block) for block in blocks]).numpy()
    label = np.array([data.splits["train"][i].label for i in order])
    fit_head(classifier.head, features, label, balance=True)
    torch.testing.assert_close(found, classifier.head.weight, atol=1e-4, rtol=1e-2)


@pytest.mark.slow
def test_a_run_with_averaged_weights_goes_on_to_the_same_bits(compose_run: Compose, tmp_path: Path) -> None:
    run(compose_run(*SCRATCH, folder="whole"))
    stopped = compose_run(*SCRATCH, folder="parted")
    parts = build(stopped)
    parts.trainer.callbacks.append(StopAfterTwo())  # type: ignore[attr-defined] # set by a connector
    with pytest.raises(SystemExit):
        parts.trainer.fit(parts.classifier, datamodule=parts.datamodule)
    last = tmp_path / "parted" / "checkpoints" / "last.ckpt"
    run(compose_run(*SCRATCH, f"ckpt_path={last}", folder="parted"))
    for name in ("predictions.csv", "validation.csv", "splits.csv"):
        assert (tmp_path / "parted" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "parted")]
    assert results[0]["threshold"] == results[1]["threshold"]


def test_the_average_is_kept_beside_the_weights_of_the_last_step(compose_run: Compose, tmp_path: Path) -> None:
    run(compose_run(*SCRATCH))
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    name = "head.weight"
    assert not torch.equal(checkpoint["state_dict"][name], checkpoint["current_model_state"][name])
    assert checkpoint["averaging_state"]["n_averaged"] == 3 * 4


@pytest.mark.parametrize("model", [pytest.param("vgg16", marks=pytest.mark.slow), "resnext", "googlenet", "timm"])
def test_every_network_takes_the_robust_experiment(model: str, compose_run: Compose) -> None:
    cfg = compose_run("experiment=robust", f"model={model}", "model.weights=null", "data.image_size=64")
    cfg.trainer.fast_dev_run = 1
    components = build(cfg)
    components.trainer.fit(components.classifier, datamodule=components.datamodule)
    assert components.trainer.global_step == 1


def test_subtypes_are_three_classes(compose_run: Compose, tmp_path: Path) -> None:
    options = ("data.task=subtype", "optimizer=adam", "epochs=2")
    results = run(compose_run(*options))
    assert results["task"] == "subtype"
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    classes = ["NORMAL", "BACTERIAL", "VIRAL"]
    margins = [f"logit_margin_{name}" for name in classes]
    assert list(rows[0]) == ["path", "label", "probability", "prediction", *classes, *margins]
    for row in rows:
        shares = [float(row[name]) for name in classes]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == pytest.approx(shares[1] + shares[2], abs=1e-6)
        assert row["prediction"] == classes[int(np.argmax(shares))]
        assert ("virus" in row["path"]) == (row["label"] == "VIRAL")
    assert results["test_accuracy"] == pytest.approx(np.mean([row["label"] == row["prediction"] for row in rows]))


def test_what_cannot_be_is_refused(compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"data\.fold=7"):
        build(compose_run("data.split=kfold", "data.fold=7"))
    with pytest.raises(ConfigError, match=r"decision\.threshold=best must be fixed, youden"):
        build(compose_run("decision.threshold=best"))
    with pytest.raises(ConfigError, match=r"features\.cache=true cannot be: decision\.flip=true"):
        run(compose_run("model=timm", "model.weights=null", "features.cache=true", "decision.flip=true"))
    with pytest.raises(ConfigError, match=r"scheduler.*warm_up=2"):
        build(compose_run("scheduler=one_cycle", "scheduler.warm_up=2"))
