from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import Compose
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from omegaconf import DictConfig

from pneumo.config.checks import check_config
from pneumo.config.relations import directions, monitor_mode
from pneumo.errors import ConfigError
from pneumo.metrics.definitions import measure
from pneumo.metrics.predictions import Predictions, predict_classes
from pneumo.training.components import _make_optimizer_and_scheduler, build

STOP = "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping"


class Custom(Callback):
    """A user's callback without a `mode` parameter."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor


@pytest.mark.parametrize("classes", [2, 3])
def test_better_predictions_move_each_metric_in_its_direction(classes: int) -> None:
    label = np.arange(12) % classes
    right = np.eye(classes)[label] * 0.9 + 0.1 / classes
    good, bad = (measure(Predictions(p, label, predict_classes(p, 0.5))) for p in (right, np.roll(right, 1, 1)))
    assert good.keys() == directions().keys() - {"loss"}
    for name, value in good.items():
        assert (value > bad[name]) if monitor_mode(f"val/{name}") == "max" else (value < bad[name]), name
    assert monitor_mode("val/loss") == "min"


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("val/loss", "min"), ("val/auroc", "max"), ("train/accuracy", "max"), ("val/ece", "min"), ("null", "min")],
)
def test_the_mode_of_the_best_checkpoint_follows_its_metric(monitor: str, mode: str, compose_run: Compose) -> None:
    cfg = compose_run(f"callbacks.best.monitor={monitor}")
    assert cfg.callbacks.best.mode == mode
    check_config(cfg)


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("+callbacks.stop.monitor=val_loss", "val/loss"),
        ("callbacks.best.monitor=val_auroc", "val/auroc"),
        ("callbacks.best.monitor=train_acc", "train/accuracy"),
        ("callbacks.best.monitor=test/auroc", "val/auroc"),
        ("callbacks.best.monitor=loss", "val/loss"),
        ("callbacks.best.monitor=lr-Adam", "val/"),  # the optimizer is SGD
    ],
)
def test_an_unknown_metric_is_rejected(override: str, suggestion: str, compose_run: Compose) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(compose_run(STOP, override))
    key = override.split("=")[0].lstrip("+")
    assert str(caught.value).startswith(f"{override.lstrip('+')} must be a logged metric")
    assert f"{key}={suggestion}" in str(caught.value)
    assert all(name in str(caught.value) for name in (*directions(), "lr-SGD"))


@pytest.mark.parametrize(("monitor", "mode"), [("val/auroc", "min"), ("val/loss", "max"), ("val/loss", "lower")])
def test_a_wrong_mode_for_a_metric_is_rejected(monitor: str, mode: str, compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=rf"callbacks\.best\.mode={mode} must be {monitor_mode(monitor)}"):
        check_config(compose_run(f"callbacks.best.monitor={monitor}", f"callbacks.best.mode={mode}"))


def test_the_learning_rate_may_be_monitored_in_either_mode(compose_run: Compose) -> None:
    for mode in ("min", "max"):
        check_config(compose_run(STOP, "+callbacks.stop.monitor=lr-SGD", f"+callbacks.stop.mode={mode}"))
    with pytest.raises(ConfigError, match="must be a logged metric"):
        check_config(compose_run("~callbacks.lr", STOP, "+callbacks.stop.monitor=lr-SGD"))


def test_custom_callbacks_get_the_mode_of_their_metric(compose_run: Compose) -> None:
    extra = [
        "+callbacks.extra._target_=lightning.pytorch.callbacks.ModelCheckpoint",
        "+callbacks.extra.monitor=val/mcc",
    ]
    custom = [f"+callbacks.custom._target_={__name__}.Custom", "+callbacks.custom.monitor=val/auroc"]
    scheduler = ["scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", "~scheduler.T_max"]
    parts = build(compose_run(STOP, "+callbacks.stop.monitor=val/auroc", *extra, *custom, *scheduler))
    callbacks: list[Any] = parts.trainer.callbacks  # type: ignore[attr-defined] # set by Lightning
    kinds = (EarlyStopping, ModelCheckpoint)
    modes = {callback.monitor: callback.mode for callback in callbacks if isinstance(callback, kinds)}
    assert modes == {"val/auroc": "max", "val/mcc": "max", "val/loss": "min", None: "min"}
    assert any(isinstance(callback, Custom) for callback in callbacks)
    configured: Any = parts.classifier.configure_optimizers()
    assert configured["lr_scheduler"]["monitor"] == "val/loss"
    with pytest.raises(ConfigError, match=r"scheduler\.mode=max must be min"):
        _make_optimizer_and_scheduler(compose_run(*scheduler, "+scheduler.mode=max"), "32-true")


@pytest.mark.parametrize(("objective", "direction"), [("val_loss", "MINIMIZE"), ("val_auroc", "MAXIMIZE")])
def test_a_search_has_the_direction_of_its_objective(objective: str, direction: str, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    from pneumo.sweeps.trials import Space, open_trials

    sweep = {"name": "rates", "storage": "sqlite://", "objective": objective, "at_once": 1}
    trials = open_trials(DictConfig({"seed": 0, "sweep": sweep}), tmp_path, Space({}, []), {})
    assert trials.study.direction.name == direction


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_logger_that_is_not_installed_is_rejected(
    name: str, compose_run: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumo.config.relations.find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"logger\.{name} requires {name}.*pip install 'pneumo\[{name}\]'"):
        check_config(compose_run(f"logger=[csv,{name}]"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.site=A",), r"data\.site=A would have no effect.*data\.split=site"),
        (("data.split=site",), r"data\.split=site requires data\.site"),
        (("data.task=subtype", "data.classes=[A,B,C]"), r"data\.task=subtype .*\[A,B,C\] has 3"),
        (("+data.columns.age=x",), r"data\.columns=.*file, label, patient, site, split"),
        (("data.mapping=[A]",), r"data\.mapping=\[A\] must be the class of each label"),
        (("data.preset=mimic",), r"data\.preset=mimic must be nih, rsna, chexpert or vindr"),
        (("data.test_fraction=0.6",), r"data\.test_fraction=0\.6"),
    ],
)
def test_settings_of_a_table_are_checked(overrides: tuple[str, ...], message: str, compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(compose_run("data=table", "data.table=labels.csv", *overrides))


def test_settings_of_a_table_are_accepted(compose_run: Compose) -> None:
    table = ("data=table", "data.table=labels.csv", "data.columns.file=Image Index", "data.preset=vindr")
    check_config(compose_run(*table, "data.split=site", "data.site=7", "data.mapping={No Finding: NORMAL, x: null}"))
