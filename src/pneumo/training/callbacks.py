"""Callbacks of a run: seeding, checks of losses and logits, weight averaging, history and progress."""

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
_REMEDY = "Lower optimizer.lr, clip gradients with +trainer.gradient_clip_val=1, or, with 16-mixed, set "
_REMEDY += "trainer.precision=32-true."


class SeedEveryEpoch(Callback):
    """Seed each epoch by run seed and epoch, so that a resumed run repeats the uninterrupted one."""

    def __init__(self, seed: int) -> None:
        """Initialize with the run's seed."""
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed PyTorch for the epoch."""
        torch.manual_seed(self.seed * 100_000 + trainer.current_epoch)


class RecordConfig(Callback):
    """Store the configuration in each checkpoint, so that a run resumes only with the same settings."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Initialize with the configuration: dotted keys and plain values."""
        self.config = config

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the configuration to the checkpoint."""
        checkpoint["config"] = self.config


class History(Callback):
    """Store the metrics of each epoch, also in checkpoints, so that a resumed run plots complete learning curves."""

    def __init__(self) -> None:
        """Initialize an empty history."""
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's number and metrics."""
        names = [f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", "auroc", "accuracy")]
        metrics = {name: trainer.callback_metrics[name].item() for name in names if name in trainer.callback_metrics}
        self.epochs.append({"epoch": trainer.current_epoch + 1, **metrics})

    def state_dict(self) -> dict[str, Any]:
        """Return the metrics of all epochs so far."""
        return {"epochs": list(self.epochs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the epochs unless this run already has more, as when the test loads the best checkpoint."""
        self.epochs = max(self.epochs, list(state_dict["epochs"]), key=len)


class AveragedWeights(WeightAveraging):
    """Exponential moving average (EMA) of the weights, for validation, test and checkpoints.

    Lightning's `WeightAveraging` restores the weights of the last step when the training process loads a checkpoint to
    test it. The test would then not use the weights that validation has selected.
    """

    def __init__(self, decay: float) -> None:
        """Initialize with the decay; the average spans about 1 / (1 - decay) steps.

        The decay is smaller in the first steps, so that the initial weights fade from the average quickly.
        """
        super().__init__(multi_avg_fn=partial(_mix, decay))

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether to update the average: after each step."""
        return step_idx is not None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore average and weights to resume training; a test needs only the average, which is loaded already."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def _mix(decay: float, averages: list[Tensor], weights: list[Tensor], steps: Tensor) -> None:
    """Update the averages in place with the weights of a step; `steps` is the number of steps already averaged.

    Constant tensors stay bit-identical, such as a frozen backbone or the buffers of its normalization.
    """
    decay = min(decay, (1 + int(steps)) / (10 + int(steps)))
    get_ema_multi_avg_fn(decay)(averages, weights, steps)  # type: ignore[no-untyped-call] # untyped in torch


class LogLearningRate(Callback):
    """Log each parameter group's learning rate once per epoch, with the epoch's metrics."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the rates at the start of the epoch; at its end, the scheduler has already changed them."""
        for optimizer in trainer.optimizers:
            for i, group in enumerate(optimizer.param_groups):
                name = f"lr-{type(optimizer).__name__}" + (f"/{i}" if i else "")
                pl_module.log(name, group["lr"], on_step=False, on_epoch=True)


class EpochLog(Callback):
    """Log one line per epoch, to the terminal and to the run's log file."""

    started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's timer."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log metrics and duration of the epoch."""
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        names = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/auroc")
        shown = "  ".join(f"{name} {metrics[name]:.4f}" for name in names if name in metrics)
        seconds = time.perf_counter() - self.started
        _log.info("Epoch %d/%s  %s  %.1f s", trainer.current_epoch + 1, trainer.max_epochs, shown, seconds)


class PlainProgress(ProgressBar):
    """Progress without a terminal: at most one log line every `interval` seconds."""

    def __init__(self, interval: float = 30.0) -> None:
        """Initialize with the interval in seconds."""
        super().__init__()
        self.interval = interval
        self.last = time.perf_counter()

    def disable(self) -> None:
        """Disable progress; Lightning calls this on all processes but rank 0."""
        self.interval = math.inf

    def on_train_batch_end(self, trainer: Trainer, *_: object, **__: object) -> None:
        """Log the training step."""
        self._log(f"Epoch {trainer.current_epoch + 1}", trainer.fit_loop.epoch_loop, trainer.num_training_batches)

    def on_validation_batch_end(self, trainer: Trainer, *_: object, **__: object) -> None:
        """Log the validation step."""
        self._log("Validation", trainer.fit_loop.epoch_loop.val_loop, sum(trainer.num_val_batches))

    def on_test_batch_end(self, trainer: Trainer, *_: object, **__: object) -> None:
        """Log the test step."""
        self._log("Test", trainer.test_loop, sum(trainer.num_test_batches))

    def _log(self, stage: str, loop: _TrainingEpochLoop | _EvaluationLoop, total: float) -> None:
        if time.perf_counter() - self.last > self.interval:
            self.last = time.perf_counter()
            _log.info("%s: step %d of %s", stage, loop.batch_progress.current.ready, total)


class LiveProgress(RichProgressBar):
    """Lightning's progress bar with epochs counted from 1, as in the log lines."""

    shown: Mapping[str, Any] = {}

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the metrics, updated only when steps are logged: reading the loss synchronizes host and device."""
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined] # set by Lightning
            self.shown = super().get_metrics(trainer, pl_module)
        return dict(self.shown)

    def _get_train_description(self, current_epoch: int) -> str:
        description = f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"
        return f"{description:{len(self.validation_description)}}"  # as wide as the bar below it


def make_progress_bar() -> ProgressBar:
    """Return a progress bar for a terminal, else one that writes log lines."""
    quiet = rich.get_console().quiet  # in sweeps with parallel jobs
    return LiveProgress(leave=False) if sys.stdout.isatty() and not quiet else PlainProgress()


class StopOnNonFiniteLoss(Callback):
    """Stop with an error when a loss or logit is infinite or NaN, before a checkpoint is written.

    Reading the training loss synchronizes host and device, so it is only checked every `log_every_n_steps` steps and at
    the end of each epoch. Validation and test are checked at their end.
    """

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 (Lightning's signature)
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Check the loss every `log_every_n_steps` steps."""
        if batch_idx % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined] # set by Lightning
            self._check(trainer, "training", outputs["loss"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the epoch's mean loss, which is not finite if the loss of any step was not."""
        self._check(trainer, "training", trainer.callback_metrics["train/loss"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check loss and logits of a validation, including the sanity check before the first epoch."""
        self._check_evaluation(trainer, pl_module, "validation", "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check loss and logits of the test."""
        self._check_evaluation(trainer, pl_module, "test", "test")

    def _check_evaluation(self, trainer: Trainer, pl_module: LightningModule, name: str, stage: str) -> None:
        if (loss := trainer.callback_metrics.get(f"{stage}/loss")) is not None:
            self._check(trainer, name, loss)
        if isinstance(pl_module, Classifier) and stage in pl_module.outputs:
            require_finite_logits(pl_module.outputs[stage]["logits"], name)

    def _check(self, trainer: Trainer, name: str, loss: Tensor) -> None:
        if not math.isfinite(loss):
            weights = " If it was not finite from the start, set model.weights to other weights."
            raise NonFiniteLossError(
                f"The {name} loss is {loss.item()} in epoch {trainer.current_epoch + 1}, step {trainer.global_step}, "
                f"so the run stops. {_REMEDY}"
                f"{weights if trainer.global_step <= 1 else ''}"
            )


def require_finite_logits(logits: Tensor, name: str) -> None:
    """Raise a NonFiniteLossError if a validation or test logit is infinite or NaN."""
    if not logits.isfinite().all():
        non_finite = int((~logits.isfinite()).any(1).sum())
        raise NonFiniteLossError(
            f"The logits of {non_finite} of {len(logits)} {name} images are infinite or NaN, so the run "
            f"stops. {_REMEDY}"
        )


# Callbacks that depend on epochs only, not on single steps, and do not change learning rates.
PASSIVE_CALLBACKS = (EpochLog, History, LogLearningRate, RecordConfig, SeedEveryEpoch, StopOnNonFiniteLoss)
