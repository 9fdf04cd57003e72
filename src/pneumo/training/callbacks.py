"""Callbacks of a run: seeds, finite losses and logits, averaged weights, history and progress."""

import logging
import math
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import rich
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar, RichProgressBar, WeightAveraging
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pneumo.errors import NonFiniteLossError
from pneumo.models.classifier import Classifier

_log = logging.getLogger(__name__)
_REMEDY = "Lower optimizer.lr, clip gradients with +trainer.gradient_clip_val=1, or, with 16-mixed, take "
_REMEDY += "trainer.precision=32-true."


class SeedEveryEpoch(Callback):
    """Make dropout and the like depend on seed and epoch alone, so that a resumed run repeats the uninterrupted one."""

    def __init__(self, seed: int) -> None:
        """Set the run's seed."""
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed the epoch."""
        torch.manual_seed(self.seed * 100_000 + trainer.current_epoch)


class RecordConfig(Callback):
    """Keep the configuration in each checkpoint, so that a run goes on only as it began."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Set the configuration: dotted keys and plain values."""
        self.config = config

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the configuration."""
        checkpoint["config"] = self.config


class History(Callback):
    """Keep what each epoch came to, in checkpoints too: a run that goes on draws the curves of an uninterrupted one."""

    def __init__(self) -> None:
        """Begin before the first epoch."""
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's number and metrics."""
        names = [f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", "auroc", "accuracy")]
        metrics = {name: trainer.callback_metrics[name].item() for name in names if name in trainer.callback_metrics}
        self.epochs.append({"epoch": trainer.current_epoch + 1, **metrics})

    def state_dict(self) -> dict[str, Any]:
        """Return all epochs so far."""
        return {"epochs": list(self.epochs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after these epochs; fewer than are known are those of the best checkpoint, which the test loads."""
        self.epochs = max(self.epochs, list(state_dict["epochs"]), key=len)


class AveragedWeights(WeightAveraging):
    """An exponential moving average of the weights, which validation, test and checkpoints see.

    Lightning's own also puts the weights of the last step back when a checkpoint is loaded for testing in the process
    that has trained, so that other weights would be tested than those that validation chose.
    """

    def __init__(self, decay: float) -> None:
        """Set how much of the average stays at each step; 1 / (1 - decay) steps are remembered.

        The first steps are remembered for less long, so that the average does not hang on to how the weights began.
        """
        super().__init__(multi_avg_fn=partial(_mix, decay))

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Average after each step."""
        return step_idx is not None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore average and weights where training resumes; elsewhere the average, which was loaded, is all."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def _mix(decay: float, averages: list[Tensor], weights: list[Tensor], steps: Tensor) -> None:
    """Update averages by the weights of a step, in place; `steps` is the number of steps that are in them.

    What does not move stays as it is, to the last bit: a frozen backbone, the means and deviations of its source.
    """
    kept = min(decay, (1 + int(steps)) / (10 + int(steps)))
    get_ema_multi_avg_fn(kept)(averages, weights, steps)  # type: ignore[no-untyped-call] # torch gives it no types


class LogLearningRate(Callback):
    """Log each parameter group's learning rate once an epoch, with the epoch's metrics."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the rates that the epoch is trained with: at its end the schedule has taken its step already."""
        for optimizer in trainer.optimizers:
            for i, group in enumerate(optimizer.param_groups):
                name = f"lr-{type(optimizer).__name__}" + (f"/{i}" if i else "")
                pl_module.log(name, group["lr"], on_step=False, on_epoch=True)


class EpochLog(Callback):
    """Write one line for each epoch, to the terminal and to the run's log file."""

    started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the line."""
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        names = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/auroc")
        shown = "  ".join(f"{name} {metrics[name]:.4f}" for name in names if name in metrics)
        seconds = time.perf_counter() - self.started
        _log.info("epoch %d/%s  %s  %.1f s", trainer.current_epoch + 1, trainer.max_epochs, shown, seconds)


class PlainProgress(ProgressBar):
    """Progress where there is no terminal: a line when the last one is `interval` seconds old."""

    def __init__(self, interval: float = 30.0) -> None:
        """Set the interval in seconds."""
        super().__init__()
        self.interval = interval
        self.last = time.perf_counter()

    def disable(self) -> None:
        """Lightning calls this on all processes but the first."""
        self.interval = math.inf

    def on_train_batch_end(self, trainer: Trainer, *_: object, **__: object) -> None:
        """Log the step of the training epoch."""
        self._log(f"epoch {trainer.current_epoch + 1}", trainer.fit_loop.epoch_loop, trainer.num_training_batches)

    def on_validation_batch_end(self, trainer: Trainer, *_: object, **__: object) -> None:
        """Log the step of the validation."""
        self._log("validation", trainer.fit_loop.epoch_loop.val_loop, sum(trainer.num_val_batches))

    def on_test_batch_end(self, trainer: Trainer, *_: object, **__: object) -> None:
        """Log the step of the test."""
        self._log("test", trainer.test_loop, sum(trainer.num_test_batches))

    def _log(self, what: str, loop: _TrainingEpochLoop | _EvaluationLoop, total: float) -> None:
        if time.perf_counter() - self.last > self.interval:
            self.last = time.perf_counter()
            _log.info("%s: step %d of %s", what, loop.batch_progress.current.ready, total)


class LiveProgress(RichProgressBar):
    """Lightning's live bar, with epochs counted from 1, as in the lines next to it."""

    shown: Mapping[str, Any] = {}

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the loss, read as often as steps are logged: reading makes the host wait for the device."""
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined] # set by a connector
            self.shown = super().get_metrics(trainer, pl_module)
        return dict(self.shown)

    def _get_train_description(self, current_epoch: int) -> str:
        description = f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"
        return f"{description:{len(self.validation_description)}}"  # as wide as the bar below it


def make_progress_bar() -> ProgressBar:
    """Return a live bar on a terminal, plain lines elsewhere."""
    quiet = rich.get_console().quiet  # of a sweep, several of whose jobs run at once
    return LiveProgress(leave=False) if sys.stdout.isatty() and not quiet else PlainProgress()


class StopOnNonFiniteLoss(Callback):
    """Stop with an error when a loss or logit is infinite or NaN, before a checkpoint is written.

    Reading the loss of each training step would make the host wait for the device. It is read as often as steps are
    logged, and at the end of each epoch. Validation and test are checked at their end.
    """

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 (Lightning's signature)
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Check every log_every_n_steps."""
        if batch_idx % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined] # set by a connector
            self._check(trainer, "training", outputs["loss"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the epoch's mean, which is not finite if any step's loss was not."""
        self._check(trainer, "training", trainer.callback_metrics["train/loss"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the validation, also the one before the first epoch."""
        self._check_evaluation(trainer, pl_module, "validation", "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the test."""
        self._check_evaluation(trainer, pl_module, "test", "test")

    def _check_evaluation(self, trainer: Trainer, pl_module: LightningModule, name: str, stage: str) -> None:
        if (loss := trainer.callback_metrics.get(f"{stage}/loss")) is not None:
            self._check(trainer, name, loss)
        if isinstance(pl_module, Classifier) and stage in pl_module.outputs:
            require_finite_logits(pl_module.outputs[stage]["logits"], name)

    def _check(self, trainer: Trainer, name: str, loss: Tensor) -> None:
        if not math.isfinite(loss):
            weights = " If it was so from the start, choose other weights with model.weights."
            raise NonFiniteLossError(
                f"The {name} loss is {loss.item()} in epoch {trainer.current_epoch + 1}, step {trainer.global_step}; "
                f"nothing after it could be trusted, so the run ends here. {_REMEDY}"
                f"{weights if trainer.global_step <= 1 else ''}"
            )


def require_finite_logits(logits: Tensor, name: str) -> None:
    """Raise a NonFiniteLossError if a logit of a validation or test is infinite or NaN."""
    if not logits.isfinite().all():
        broken = int((~logits.isfinite()).any(1).sum())
        raise NonFiniteLossError(
            f"The logits of {broken} of {len(logits)} {name} images are infinite or NaN; nothing after them could be "
            f"trusted, so the run ends here. {_REMEDY}"
        )


# Callbacks that do the same where they see only the last of many steps, and set no rates.
BYSTANDERS = (EpochLog, History, LogLearningRate, RecordConfig, SeedEveryEpoch, StopOnNonFiniteLoss)
