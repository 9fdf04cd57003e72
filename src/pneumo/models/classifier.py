"""The LightningModule: any backbone and a head, trained as a classifier."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torchmetrics import CatMetric, MeanMetric

from pneumo.errors import ConfigError
from pneumo.metrics.definitions import measure
from pneumo.metrics.predictions import Predictions, predict_classes
from pneumo.models.backbones import build, log_odds
from pneumo.models.checkpoint_reader import CheckpointModule
from pneumo.models.fine_tuning import PLATEAU, OneCycle, TrainingOptions, parameter_groups
from pneumo.models.hyperparameters import PredictionOptions
from pneumo.models.ood_detector import Outliers

Batch = dict[str, Tensor]


class Classifier(CheckpointModule):
    """A backbone and a linear head, trained by cross entropy.

    After an epoch's validation, or the test, `answers` has what was answered: logits (N, classes) and index (N,), the
    place in the split, of all processes, in the split's order. Checkpoints hold those of the validation.

    A checkpoint needs nothing else: `Classifier.load_from_checkpoint(path)` rebuilds the architecture that it names
    and takes all weights from the file.
    """

    class_weights: Tensor | None
    outliers: Outliers | None = None  # detects images unlike the training's; tested checkpoints have it

    def __init__(
        self,
        architecture: str,
        classes: Sequence[str],
        image_size: int,
        crop_pct: float = 1.0,
        freeze: bool = False,
        head_path: str | None = None,
        prediction: PredictionOptions | None = None,
        training: TrainingOptions | None = None,
    ) -> None:
        """Build the network.

        Args:
            architecture: SOURCE/NAME, such as torchvision/resnext50_32x4d, timm/convnext_tiny or pneumo/xraychestnet.
            classes: Names of the classes; of two, the second is the positive one.
            image_size: Height and width of the images in pixels.
            crop_pct: Fraction of height and width that is kept of a file; see `pneumo.data.grey.square`.
            freeze: Train the head alone.
            head_path: Dotted path of the layer that the head replaces; None is the last linear layer.
            prediction: How logits become predictions; None: by the defaults.
            training: How the network is trained; None: by the defaults.
        """
        super().__init__()
        prediction = PredictionOptions() if prediction is None else prediction
        training = TrainingOptions() if training is None else training
        self.save_hyperparameters(ignore=["prediction", "training"], logger=False)
        self.hparams.update(asdict(prediction))
        self.classes, self.image_size, self.crop_pct = list(classes), image_size, crop_pct
        self.frozen, self.flip_test, self.label_smoothing = freeze, prediction.flip_test, training.label_smoothing
        weights = None if training.class_weights is None else torch.tensor(training.class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        self.backbone, self.head = build(architecture, training.weights, head_path, image_size, len(classes), freeze)
        self.make_optimizer, self.make_scheduler = training.optimizer, training.scheduler
        self.fine_tuning = None if freeze or training.weights is None else training.fine_tuning
        self.batch_size = training.batch_size
        self.train_loss, self.val_loss, self.test_loss = (MeanMetric("disable") for _ in range(3))  # NaN shall show
        self.gathered = CatMetric("disable")  # it knows how to gather
        self.seen: dict[str, list[tuple[Tensor, ...]]] = {"train": [], "val": [], "test": []}
        self.answers: dict[str, Batch] = {}
        self.trained_threshold = prediction.threshold
        self.decide(prediction.temperature, prediction.threshold, prediction.margin)
        self.train()

    def decide(self, temperature: float, threshold: float, margin: float | None) -> None:
        """Have the test, predictions and checkpoints use this temperature, threshold and margin."""
        self.temperature = temperature
        self.hparams.update(temperature=temperature, threshold=threshold, margin=margin)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 1, H, W) uint8, or features (N, D) of the backbone, to logits (N, classes)."""
        logits: Tensor = self.head(x if x.ndim == 2 else self.backbone(x))
        return logits

    def answer(self, x: Tensor) -> Tensor:
        """Map the same to the logits that count outside of training, (N, classes)."""
        with torch.autocast(x.device.type, enabled=False):  # a checkpoint answers alike, however it was trained
            logits: Tensor = self(x)
            return (logits + self(x.flip(3))) / 2 if self.flip_test and x.ndim == 4 else logits

    def probability(self, logits: Tensor) -> Tensor:
        """Map logits (N, classes) to float32 probabilities: of the positive class (N,), or of several (N, classes)."""
        shares = torch.softmax(logits.float() / self.temperature, dim=1)
        return shares[:, 1] if len(self.classes) == 2 else shares

    def predictions(self, logits: Tensor, label: Tensor, threshold: float) -> Predictions:
        """Return the predictions that follow from logits (N, classes) of images with these labels, (N,)."""
        scaled = logits.float().cpu() / self.temperature
        probability, odds = torch.softmax(scaled, dim=1).numpy(), log_odds(scaled).double().numpy()
        predicted = predict_classes(probability, threshold)
        return Predictions(probability.astype(np.float64), label.cpu().numpy(), predicted, tuple(self.classes), odds)

    def train(self, mode: bool = True) -> "Classifier":
        """Switch to training or evaluation; a frozen backbone stays in evaluation."""
        self.training = mode
        for child in self.children():
            child.train(mode and not (self.frozen and child is self.backbone))
        return self

    def on_train_epoch_start(self) -> None:
        """Begin with nothing seen; an epoch that was cut off may have left something."""
        self.seen["train"].clear()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the batch's loss."""
        logits = self(batch["input"])
        loss = self._loss(logits, batch["label"], "train")
        self._keep("train", batch, logits)
        self.log("loss", loss, prog_bar=True, logger=False, batch_size=len(batch["label"]))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ANN401 (Lightning's)
        """Measure the epoch, after its last batch."""
        trainer = self.trainer
        if trainer.is_last_batch or trainer.should_stop or trainer.global_step == trainer.max_steps:
            self._measure("train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Predict a validation batch."""
        self._keep("val", batch, self.answer(batch["input"]))

    def on_validation_epoch_end(self) -> None:
        """Measure the validation."""
        self._measure("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Predict a test batch."""
        self._keep("test", batch, self.answer(batch["input"]))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Give what `probability` gives."""
        return self.probability(self.answer(batch["input"]))

    def on_test_epoch_end(self) -> None:
        """Measure the test."""
        self._measure("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the epoch's metrics and answers, which tell how good a checkpoint is, and what to decide."""
        checkpoint["metrics"] = {name: value.item() for name, value in self.trainer.callback_metrics.items()}
        checkpoint["validation"] = self.answers.get("val", {})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take what tells unlike images, if the checkpoint is one that was tested."""
        self.outliers = Outliers(**checkpoint["outliers"]) if "outliers" in checkpoint else None

    def build_optimizer(self) -> Optimizer:
        """Build the optimizer of the trainable parameters; raise a ConfigError if the classifier was given none."""
        if self.make_optimizer is None:
            raise ConfigError(
                "Training needs an optimizer: give Classifier TrainingOptions(optimizer=...), such as torch.optim.Adam."
            )
        if self.fine_tuning is None or self.fine_tuning.lr_decay == 1.0:
            return self.make_optimizer(parameter for parameter in self.parameters() if parameter.requires_grad)
        optimizer = self.make_optimizer(parameter_groups(self.backbone, self.head, self.fine_tuning.lr_decay))
        for group in optimizer.param_groups:
            group["lr"] *= group["lr_scale"]
        return optimizer

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer, and the schedule if there is one."""
        optimizer = self.build_optimizer()
        if self.make_scheduler is None:
            return optimizer
        if isinstance(self.make_scheduler, OneCycle):
            schedule = self.make_scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        schedule = self.make_scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": PLATEAU}}

    def _loss(self, logits: Tensor, label: Tensor, stage: str) -> Tensor:
        """Compute the cross-entropy loss; class weights and label smoothing apply in training only.

        Given both, torch weights the label that smoothing gives to a class by that class, so that labels of the larger
        class would be smoothed the most; here an image has one weight.
        """
        smoothing = self.label_smoothing if stage == "train" else 0.0
        if stage != "train" or self.class_weights is None:
            return cross_entropy(logits, label, label_smoothing=smoothing)
        losses = cross_entropy(logits, label, label_smoothing=smoothing, reduction="none")
        weights = self.class_weights[label]
        return (losses * weights).sum() / weights.sum()

    def _keep(self, stage: str, batch: Batch, logits: Tensor) -> None:
        # Costs less than updating metrics at each step.
        self.seen[stage].append((logits.detach(), batch["label"], batch["index"]))

    def _measure(self, stage: str) -> None:
        """Log an epoch's loss and metrics, and keep the answers that are not training's."""
        logits, label, place = map(torch.cat, zip(*self.seen[stage], strict=True))
        self.seen[stage].clear()
        loss, logits = getattr(self, f"{stage}_loss"), logits.float()
        loss.update(self._loss(logits, label, stage), len(label))
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True)
        gathered = self._gather(torch.column_stack((place, label, logits)))
        place, label, logits = gathered[:, 0].long(), gathered[:, 1].long(), gathered[:, 2:]
        threshold = self.hparams["threshold"] if stage == "test" else self.trained_threshold
        found = measure(self.predictions(logits, label, threshold))
        values = {f"{stage}/{name}": value for name, value in found.items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        if stage != "train":
            self.answers[stage] = {"index": place, "logits": logits}

    def _gather(self, rows: Tensor) -> Tensor:
        """Gather the rows, (n, columns), of all processes in the host's memory, sorted by the first column."""
        self.gathered.update(rows)
        found = self.gathered.compute().reshape(-1, rows.shape[1]).cpu()  # it squeezes what a single image got
        self.gathered.reset()
        return found[found[:, 0].argsort(stable=True)]


class HeadClassifier(Classifier):
    """A classifier whose head takes many steps a batch of cached features; one of Lightning's steps takes longer."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Take all of a batch's steps but the last, and compute the loss of that."""
        parts = zip(*(torch.split(each, self.batch_size or len(each)) for each in batch.values()), strict=True)
        *earlier, last = (dict(zip(batch, part, strict=True)) for part in parts)
        if earlier:
            optimizer = self.optimizers(use_pl_optimizer=False)
            assert isinstance(optimizer, Optimizer)
            for part in earlier:
                optimizer.zero_grad()
                logits = self(part["input"])
                self._keep("train", part, logits)
                torch.autograd.backward(self._loss(logits, part["label"], "train"))
                optimizer.step()
        return super().training_step(last, batch_idx)
