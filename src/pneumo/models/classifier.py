"""The LightningModule: a backbone with a linear head, trained with cross entropy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torchmetrics import CatMetric, MeanMetric

from pneumo.common.input_format import InputFormat
from pneumo.errors import ConfigError
from pneumo.metrics.definitions import measure
from pneumo.metrics.predictions import Predictions, predict_classes
from pneumo.models.backbones import build_backbone
from pneumo.models.checkpoint_reader import CheckpointModule
from pneumo.models.fine_tuning import PLATEAU, OneCycle, TrainingOptions, parameter_groups
from pneumo.models.hyperparameters import PredictionOptions
from pneumo.models.logits import calibrate_logits, log_odds
from pneumo.models.ood_detector import OodDetector

Batch = dict[str, Tensor]


class Classifier(CheckpointModule):
    """A backbone and a linear head, trained with cross entropy.

    After a validation epoch or the test, `outputs` contains logits (N, classes) and image indices (N,), gathered from
    all processes and sorted by index. Checkpoints store the validation outputs.

    Checkpoints are self-contained: `Classifier.load_from_checkpoint(path)` builds the stored architecture and loads all
    weights from the file.
    """

    class_weights: Tensor | None
    ood_detector: OodDetector | None = None  # set for calibrated checkpoints
    adaptation: dict[str, Any] | None = None  # set for adapted checkpoints; see `pneumo.models.adaptation_record`

    def __init__(
        self,
        architecture: str,
        classes: Sequence[str],
        input_format: InputFormat,
        freeze: bool = False,
        head_path: str | None = None,
        prediction: PredictionOptions | None = None,
        training: TrainingOptions | None = None,
        lung_crop: int | None = None,
    ) -> None:
        """Build backbone and head.

        Args:
            architecture: SOURCE/NAME, such as torchvision/resnext50_32x4d, timm/convnext_tiny or pneumo/xraychestnet.
            classes: Names of the classes; with two, the second is positive.
            input_format: Size of the images and their conversion before they reach the network.
            freeze: Train only the head.
            head_path: Path of the layer that the head replaces; None: the last linear layer.
            prediction: Options that turn logits into predictions; None: defaults.
            training: Training options; None: defaults.
            lung_crop: Height and width of the crop to the lungs that the network receives; None: the whole image.
        """
        super().__init__()
        prediction = PredictionOptions() if prediction is None else prediction
        training = TrainingOptions() if training is None else training
        self.save_hyperparameters("architecture", "classes", logger=False)
        self.hparams.update({**input_format.provenance(), "freeze": freeze, "head_path": head_path})
        if lung_crop is not None:  # omitted otherwise, so that earlier versions read checkpoints
            self.hparams["lung_crop"] = lung_crop
        self.classes, self.input_format = list(classes), input_format
        self.frozen, self.flip_test, self.label_smoothing = freeze, prediction.flip_test, training.label_smoothing
        weights = None if training.class_weights is None else torch.tensor(training.class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        self.backbone, self.head = build_backbone(
            architecture, training.weights, head_path, input_format.size, len(classes), freeze, lung_crop
        )
        self.make_optimizer, self.make_scheduler = training.optimizer, training.scheduler
        self.fine_tuning = None if freeze or training.weights is None else training.fine_tuning
        self.batch_size = training.batch_size
        self._prepare_metrics()
        self.trained_threshold = prediction.threshold
        self.set_operating_point(prediction.temperature, prediction.threshold, prediction.margin, prediction.intercept)
        self.train()

    def _prepare_metrics(self) -> None:
        self.train_loss, self.val_loss, self.test_loss = (MeanMetric("disable") for _ in range(3))  # logs NaN unchanged
        self.gatherer = CatMetric("disable")  # gathers rows of all processes
        self.batch_outputs: dict[str, list[tuple[Tensor, ...]]] = {"train": [], "val": [], "test": []}
        self.outputs: dict[str, Batch] = {}

    def set_operating_point(
        self, temperature: float, threshold: float, margin: float | None, intercept: float = 0.0
    ) -> None:
        """Set the temperature, threshold, margin and intercept for the test, predictions and checkpoints."""
        self.temperature, self.intercept = temperature, intercept
        options = PredictionOptions(threshold, temperature, margin, self.flip_test, intercept)
        self.hparams.pop("intercept", None)  # stored only if it is not 0
        self.hparams.update(options.hyperparameters())

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 1, H, W) uint8, or features (N, D) of the backbone, to logits (N, classes)."""
        logits: Tensor = self.head(x if x.ndim == 2 else self.backbone(x))
        return logits

    def predict_logits(self, x: Tensor) -> Tensor:
        """Compute the logits for validation, test and inference, (N, classes), with flip averaging if enabled."""
        with torch.autocast(x.device.type, enabled=False):  # predictions are independent of the training precision
            logits: Tensor = self(x)
            return (logits + self(x.flip(3))) / 2 if self.flip_test and x.ndim == 4 else logits

    def probability(self, logits: Tensor) -> Tensor:
        """Compute float32 probabilities from logits, both (N, classes)."""
        return torch.softmax(calibrate_logits(logits.float(), self.temperature, self.intercept), dim=1)

    def predictions(self, logits: Tensor, label: Tensor, threshold: float) -> Predictions:
        """Build predictions from logits, (N, classes), and labels, (N,)."""
        scaled = calibrate_logits(logits.float().cpu(), self.temperature, self.intercept)
        probability, odds = torch.softmax(scaled, dim=1).numpy(), log_odds(scaled).double().numpy()
        predicted = predict_classes(probability, threshold)
        return Predictions(probability.astype(np.float64), label.cpu().numpy(), predicted, tuple(self.classes), odds)

    def train(self, mode: bool = True) -> "Classifier":
        """Set training or evaluation mode; a frozen backbone stays in evaluation mode."""
        self.training = mode
        for child in self.children():
            child.train(mode and not (self.frozen and child is self.backbone))
        return self

    def on_train_epoch_start(self) -> None:
        """Clear outputs of an interrupted epoch."""
        self.batch_outputs["train"].clear()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the cross-entropy loss of a batch."""
        logits = self(batch["input"])
        loss = self._loss(logits, batch["label"], "train")
        self._store_output("train", batch, logits)
        self.log("loss", loss, prog_bar=True, logger=False, batch_size=len(batch["label"]))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ANN401 (Lightning's)
        """Log the epoch's metrics after its last batch."""
        # `on_train_epoch_end` is too late: the callbacks `History` and `EpochLog` run before it and read the metrics.
        trainer = self.trainer
        if trainer.is_last_batch or trainer.should_stop or trainer.global_step == trainer.max_steps:
            self._log_metrics("train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Predict a validation batch."""
        self._store_output("val", batch, self.predict_logits(batch["input"]))

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_metrics("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Predict a test batch."""
        self._store_output("test", batch, self.predict_logits(batch["input"]))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the probabilities of a batch, (N, classes)."""
        return self.probability(self.predict_logits(batch["input"]))

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_metrics("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the epoch's metrics and the validation outputs, from which the operating point is selected."""
        checkpoint["metrics"] = {name: value.item() for name, value in self.trainer.callback_metrics.items()}
        checkpoint["validation"] = self.outputs.get("val", {})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the OOD detector, the internal test and the record of an adaptation."""
        self.ood_detector = OodDetector(**checkpoint["outliers"]) if "outliers" in checkpoint else None
        self.adaptation = checkpoint.get("adaptation")
        self.internal_test: Batch | None = checkpoint.get("internal_test")

    def build_optimizer(self) -> Optimizer:
        """Build the optimizer of the trainable parameters.

        Raises:
            ConfigError: The training options have no optimizer.
        """
        if self.make_optimizer is None:
            raise ConfigError(
                "Training requires an optimizer. Pass TrainingOptions(optimizer=torch.optim.Adam) to Classifier."
            )
        if self.fine_tuning is None or self.fine_tuning.lr_decay == 1.0:
            return self.make_optimizer(parameter for parameter in self.parameters() if parameter.requires_grad)
        optimizer = self.make_optimizer(parameter_groups(self.backbone, self.head, self.fine_tuning.lr_decay))
        for group in optimizer.param_groups:
            group["lr"] *= group["lr_scale"]
        return optimizer

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and, if configured, the learning-rate scheduler."""
        optimizer = self.build_optimizer()
        if self.make_scheduler is None:
            return optimizer
        if isinstance(self.make_scheduler, OneCycle):
            scheduler = self.make_scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        scheduler = self.make_scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": PLATEAU}}

    def _loss(self, logits: Tensor, label: Tensor, stage: str) -> Tensor:
        """Compute the cross-entropy loss; class weights and label smoothing apply in training only.

        Each image has the weight of its true class. `cross_entropy` with `weight` instead weights each class of the
        smoothed label, so that images of the larger class would be smoothed the most.
        """
        smoothing = self.label_smoothing if stage == "train" else 0.0
        if stage != "train" or self.class_weights is None:
            return cross_entropy(logits, label, label_smoothing=smoothing)
        losses = cross_entropy(logits, label, label_smoothing=smoothing, reduction="none")
        weights = self.class_weights[label]
        return (losses * weights).sum() / weights.sum()

    def _store_output(self, stage: str, batch: Batch, logits: Tensor) -> None:
        # Cheaper than updating metrics in each step.
        self.batch_outputs[stage].append((logits.detach(), batch["label"], batch["index"]))

    def _log_metrics(self, stage: str) -> None:
        """Log an epoch's loss and metrics, and store the outputs of validation and test."""
        logits, label, index = map(torch.cat, zip(*self.batch_outputs[stage], strict=True))
        self.batch_outputs[stage].clear()
        logits = logits.float()
        loss = {"train": self.train_loss, "val": self.val_loss, "test": self.test_loss}[stage]
        loss.update(self._loss(logits, label, stage), len(label))
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True)
        gathered = self._gather_rows(torch.column_stack((index, label, logits)))
        index, label, logits = gathered[:, 0].long(), gathered[:, 1].long(), gathered[:, 2:]
        threshold = self.hparams["threshold"] if stage == "test" else self.trained_threshold
        metrics = measure(self.predictions(logits, label, threshold))
        values = {f"{stage}/{name}": value for name, value in metrics.items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        if stage != "train":
            self.outputs[stage] = {"index": index, "logits": logits}

    def _gather_rows(self, rows: Tensor) -> Tensor:
        """Gather rows, (n, columns), from all processes in CPU memory, sorted by the first column."""
        self.gatherer.update(rows)
        gathered = self.gatherer.compute().reshape(-1, rows.shape[1]).cpu()  # CatMetric squeezes a single row
        self.gatherer.reset()
        return gathered[gathered[:, 0].argsort(stable=True)]
