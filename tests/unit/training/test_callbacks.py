from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn
from torch.optim.swa_utils import AveragedModel

from pneumo.config.fingerprints import stable_target
from pneumo.config.relations import _NEVER_STOP
from pneumo.training import callbacks, checkpoints
from pneumo.training.callbacks import PASSIVE_CALLBACKS, AveragedWeights, History, PlainProgress
from pneumo.training.checkpoints import RunCheckpoint
from pneumo.training.feature_cache import _STEP_INDEPENDENT, _ignores_steps
from pneumo.training.stored_state import _KEEP_RATES, _is_known

KINDS = [
    kind
    for module in (callbacks, checkpoints)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Callback) and kind.__module__ == module.__name__
]
# Exceptions to the tuples checked below; a new callback belongs either there or here.
DEPEND_ON_STEPS = (AveragedWeights, RunCheckpoint)  # RunCheckpoint only with some settings
SET_RATES: tuple[type[Callback], ...] = ()
STOP: tuple[type[Callback], ...] = ()


class New(Callback):
    """A new callback of pneumo that is in no tuple."""

    __module__ = callbacks.__name__


def test_every_callback_is_classified() -> None:
    assert {History, RunCheckpoint} < {*KINDS}
    for kind in KINDS:
        name = stable_target(f"{kind.__module__}.{kind.__qualname__}")
        assert (issubclass(kind, _STEP_INDEPENDENT) or kind in PASSIVE_CALLBACKS) != (kind in DEPEND_ON_STEPS), name
        assert (issubclass(kind, _KEEP_RATES) or kind in PASSIVE_CALLBACKS) != (kind in SET_RATES), name
        assert (name in _NEVER_STOP) != (kind in STOP), name


def test_an_unclassified_callback_may_depend_on_steps_and_set_rates() -> None:
    assert not _ignores_steps(New())
    assert not _is_known(New())


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    return AveragedModel(network, use_buffers=True, **AveragedWeights(decay)._kwargs)


def test_averages_of_constant_tensors_are_bit_identical() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(100, 100), nn.BatchNorm1d(100))
    network[1].running_mean = torch.randn(100)
    average = averaged(network, 0.997)
    for _ in range(500):
        average.update_parameters(network)
    for name, value in average.module.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_average_follows_the_ema_with_a_warm_up_of_the_decay(decay: float) -> None:
    network = nn.Linear(1, 1, bias=False)
    average = averaged(network, decay)
    expected = None
    for step in range(60):
        value = float(step**2 % 7)
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)
        warmed_up = min(decay, (1 + step) / (10 + step))
        expected = value if expected is None else warmed_up * expected + (1 - warmed_up) * value
    assert expected is not None
    assert average.module.get_parameter("weight").item() == pytest.approx(expected, rel=1e-5)


def test_a_resumed_run_has_the_history_of_an_uninterrupted_one(tmp_path: Path) -> None:
    def train(history: History, epochs: range) -> None:
        for epoch in epochs:
            metrics = {"train/loss": torch.tensor(1 / (epoch + 3)), "val/auroc": torch.tensor(0.1 * epoch), "loss": 1}
            trainer: Any = SimpleNamespace(current_epoch=epoch, callback_metrics=metrics)
            history.on_train_epoch_end(trainer, LightningModule())

    whole, first, second = History(), History(), History()
    train(whole, range(5))
    train(first, range(2))
    state = first.state_dict()  # may wait in memory before it is written
    train(first, range(2, 4))  # epochs lost by a kill
    torch.save(state, tmp_path / "state")
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    train(second, range(2, 5))
    second.load_state_dict(state)  # as in the test of the best checkpoint
    assert second.epochs == whole.epochs
    assert [epoch["epoch"] for epoch in whole.epochs] == [1, 2, 3, 4, 5]
    assert whole.epochs[1].keys() == {"epoch", "train/loss", "val/auroc"}


@pytest.mark.filterwarnings("ignore")
def test_progress_without_a_terminal_logs_steps(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level("INFO", "pneumo.training.callbacks")
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    quiet |= {"num_sanity_val_steps": 0, "max_epochs": 1}
    limits: dict[str, Any] = {"limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1}
    progress = PlainProgress(interval=-1)
    trainer = Trainer(accelerator="cpu", default_root_dir=tmp_path, callbacks=[progress], **quiet, **limits)
    trainer.fit(model := BoringModel())
    trainer.test(model, verbose=False)
    expected = ["Epoch 1: step 1 of 2", "Epoch 1: step 2 of 2", "Validation: step 1 of 1", "Test: step 1 of 1"]
    assert [record.message for record in caplog.records if record.name == "pneumo.training.callbacks"] == expected
