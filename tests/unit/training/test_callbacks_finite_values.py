from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers.commands import Compose
from lightning import LightningModule

from pneumo.errors import NonFiniteLossError, WeightsError
from pneumo.metrics.definitions import measure
from pneumo.metrics.predictions import Predictions
from pneumo.models.classifier import Classifier
from pneumo.training.callbacks import StopOnNonFiniteLoss
from pneumo.training.components import build
from pneumo.training.feature_cache import serve_features, warm_up_head
from pneumo.training.run import run

NAN, INF = float("nan"), float("inf")
SMALL = ("model=resnext", "model.architecture=torchvision/shufflenet_v2_x0_5", "model.weights=null")


def check(stage: str, loss: float, logits: list[list[float]], step: int = 7) -> None:
    metrics = {f"{stage}/loss": torch.tensor(loss)}
    trainer: Any = SimpleNamespace(callback_metrics=metrics, current_epoch=0, global_step=step)
    module = Mock(spec=Classifier, outputs={stage: {"logits": torch.tensor(logits)}})
    callback = StopOnNonFiniteLoss()
    (callback.on_validation_end if stage == "val" else callback.on_test_end)(trainer, module)


@pytest.mark.parametrize(("stage", "name"), [("val", "validation"), ("test", "test")])
@pytest.mark.parametrize("loss", [NAN, INF])
def test_a_non_finite_loss_stops_validation_and_test(stage: str, name: str, loss: float) -> None:
    check(stage, 0.5, [[1.0, 2.0]])
    with pytest.raises(NonFiniteLossError, match=rf"{name} loss is (nan|inf) in epoch 1, step 7.*optimizer\.lr"):
        check(stage, loss, [[1.0, 2.0]])
    with pytest.raises(NonFiniteLossError, match=r"model\.weights"):  # before any step
        check(stage, loss, [[1.0, 2.0]], step=0)


@pytest.mark.parametrize("value", [NAN, -INF])  # a logit of -inf for the wrong class leaves the loss finite
def test_non_finite_logits_stop_validation(value: float) -> None:
    with pytest.raises(NonFiniteLossError, match=r"logits of 1 of 2 validation images.*optimizer\.lr"):
        check("val", 0.5, [[1.0, 2.0], [value, 2.0]])


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_of_non_finite_probabilities_raise_no_error(classes: int) -> None:
    metrics = measure(Predictions(np.full((6, classes), NAN), np.arange(6) % classes, np.zeros(6, int)))
    assert np.isnan(metrics["brier"])  # means are NaN
    assert all(0 <= value <= 1 for name, value in metrics.items() if name not in ("brier", "ece"))


@pytest.mark.parametrize("guard", ["callback", "calibration"])
def test_weights_that_diverge_in_the_last_step_are_never_calibrated(
    guard: str, compose_run: Compose, tmp_path: Path
) -> None:
    overrides = ["optimizer.lr=1e30", "data.batch_size=64", "trainer.max_epochs=1"]  # the only training loss is finite
    if guard == "calibration":
        overrides += ["~callbacks.finite", "callbacks.best.monitor=null"]
    with pytest.raises(NonFiniteLossError, match=r"validation .*(nan|NaN).*optimizer\.lr"):
        run(compose_run(*overrides))
    assert guard == "calibration" or not list(tmp_path.rglob("*.ckpt"))
    assert not (tmp_path / "run" / "results.json").exists()


def test_non_finite_features_raise_an_error_before_they_are_cached(compose_run: Compose, tmp_path: Path) -> None:
    cfg = compose_run(*SMALL)
    components = build(cfg)
    torch.nn.init.constant_(next(components.classifier.backbone.parameters()), NAN)
    with pytest.raises(WeightsError, match=r"shufflenet_v2_x0_5.*model\.weights"):
        serve_features(cfg, components)
    assert not list((tmp_path / "cache" / "features").rglob("array.npy"))
    with pytest.raises(WeightsError, match=r"model\.weights"):
        warm_up_head(components, balance=False)


def test_the_loss_of_other_modules_is_checked() -> None:
    trainer: Any = SimpleNamespace(
        callback_metrics={"val/loss": torch.tensor(NAN)}, current_epoch=0, global_step=5, log_every_n_steps=1
    )
    with pytest.raises(NonFiniteLossError):
        StopOnNonFiniteLoss().on_validation_end(trainer, LightningModule())
