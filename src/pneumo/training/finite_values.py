"""Detection of non-finite losses, logits and features, before anything is computed from them."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from pneumo.errors import NonFiniteLossError, WeightsError

_REMEDY = (
    "Lower optimizer.lr, clip gradients with +trainer.gradient_clip_val=1, or, with 16-mixed, take "
    "trainer.precision=32-true."
)


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
        if stage in (outputs := getattr(pl_module, "outputs", {})):
            require_finite_logits(outputs[stage]["logits"], name)

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


def require_finite_features(features: npt.NDArray[np.float32], architecture: str) -> None:
    """Raise a WeightsError if a feature of a backbone is infinite or NaN."""
    if not np.isfinite(features).all():
        raise WeightsError(
            f"The backbone {architecture} returns features that are infinite or NaN: its weights are not finite or too "
            "large. Choose other weights with model.weights or, if this run has trained them, lower optimizer.lr."
        )
