"""The LightningModule: any backbone and a head, trained as a classifier."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import CatMetric, MeanMetric

from pneumo.errors import ConfigError
from pneumo.evaluation.answers import Predictions, predict_classes
from pneumo.evaluation.metrics import measure
from pneumo.models.backbone import build
from pneumo.models.fine_tuning import PLATEAU, FineTuning, OneCycle, make_optimizer
from pneumo.models.loss import weighted_cross_entropy
from pneumo.models.odds import log_odds
from pneumo.models.outliers import Outliers
from pneumo.models.restoration import CheckpointModule

MakeOptimizer = Callable[[Iterable[Any]], Optimizer]
MakeScheduler = Callable[[Optimizer], LRScheduler] | OneCycle
Batch = dict[str, Tensor]
# A checkpoint holds its own weights, and must open without the original ones.
_FOR_TRAINING = ["weights", "label_smoothing", "class_weights", "fine_tuning", "optimizer", "scheduler"]


class Classifier(CheckpointModule):
    """A backbone and a linear head, trained by cross entropy.

    After an epoch's validation, or the test, `answers` has what was answered: logits (N, classes) and index (N,), the
    place in the split, of all processes, in the split's order. Checkpoints hold those of the validation.

    A checkpoint needs nothing else: `Classifier.load_from_checkpoint(path)` rebuilds the architecture that it names
    and takes all weights from the file.
    """

    class_weights: Tensor | None
    step_size: int | None = None
    outliers: Outliers | None = None  # tells images unlike the training's; tested checkpoints have it

    def __init__(
        self,
        architecture: str,
        classes: Sequence[str],
        image_size: int,
        crop_pct: float = 1.0,
        weights: str | None = None,
        freeze: bool = False,
        head_path: str | None = None,
        threshold: float = 0.5,
        temperature: float = 1.0,
        margin: float | None = None,
        flip_test: bool = False,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        fine_tuning: FineTuning | None = None,
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
    ) -> None:
        """Build the network.

        Args:
            architecture: SOURCE/NAME, such as torchvision/resnext50_32x4d, timm/convnext_tiny or pneumo/xraychestnet.
            classes: Names of the classes; of two, the second is the positive one.
            image_size: Height and width of the images in pixels.
            crop_pct: What of height and width they keep of a file; see `pneumo.data.images.decode`.
            weights: Pretrained weights of the backbone; see `pneumo.models.weights.load_weights`. None: random ones.
            freeze: Train the head alone.
            head_path: Dotted path of the layer that the head replaces; None is the last linear layer.
            threshold: Of two classes, an image is called the positive one above this probability.
            temperature: Logits are divided by it before they become probabilities.
            margin: An answer that lies so near to the threshold, in logits, is uncertain; None: nobody has chosen it.
            flip_test: Outside of training, answer with the mean logits of an image and its mirror image.
            label_smoothing: Share of each label that training gives to all classes alike.
            class_weights: Of the classes in the training loss, (classes,); None: one each.
            fine_tuning: How a pretrained backbone is trained; None: as any other layers.
            optimizer: Makes the optimizer of the parameters that it is given; needed for training only.
            scheduler: Makes its learning-rate schedule, stepped once an epoch, or, if it is a OneCycle, once a batch.
        """
        super().__init__()
        self.save_hyperparameters(ignore=_FOR_TRAINING, logger=False)
        self.classes, self.image_size, self.crop_pct = list(classes), image_size, crop_pct
        self.frozen, self.flip_test, self.label_smoothing = freeze, flip_test, label_smoothing
        self.register_buffer("class_weights", None if class_weights is None else torch.tensor(class_weights), False)
        self.backbone, self.head = build(architecture, weights, head_path, image_size, len(self.classes), freeze)
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.fine_tuning = None if freeze or weights is None else fine_tuning
        self._prepare_measures()
        self.trained_threshold = threshold
        self.decide(temperature, threshold, margin)
        self.train()

    def _prepare_measures(self) -> None:
        """Make what is measured and kept of each epoch."""
        self.train_loss, self.val_loss, self.test_loss = (MeanMetric("disable") for _ in range(3))  # NaN shall show
        self.gathered = CatMetric("disable")  # it knows how to gather
        self.seen: dict[str, list[tuple[Tensor, ...]]] = {"train": [], "val": [], "test": []}
        self.answers: dict[str, Batch] = {}

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
        """Give the batch's loss; where `step_size` is set, after taking all its steps but the last.

        Lightning spends more time on a step than a head on cached features does, so there it is given many at once.
        """
        *earlier, last = split(batch, self.step_size or len(batch["label"]))
        if earlier:
            optimizer = self.optimizers(use_pl_optimizer=False)
            assert isinstance(optimizer, Optimizer)
            for part in earlier:
                optimizer.zero_grad()
                torch.autograd.backward(self._step(part, "train"))
                optimizer.step()
        loss = self._step(last, "train")
        self.log("loss", loss, prog_bar=True, logger=False, batch_size=len(last["label"]))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ANN401 (Lightning's)
        """Measure the epoch, after its last batch."""
        trainer = self.trainer
        if trainer.is_last_batch or trainer.should_stop or trainer.global_step == trainer.max_steps:
            self._measure("train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """See a validation batch."""
        self._step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Measure the validation."""
        self._measure("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """See a test batch."""
        self._step(batch, "test")

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

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer of the trainable parameters, and the schedule if there is one."""
        if self.make_optimizer is None:
            raise ConfigError("Training needs an optimizer: give Classifier an `optimizer`, such as torch.optim.Adam.")
        optimizer = make_optimizer(self.make_optimizer, self, self.backbone, self.head, self.fine_tuning)
        if self.make_scheduler is None:
            return optimizer
        if isinstance(self.make_scheduler, OneCycle):
            schedule = self.make_scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        schedule = self.make_scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": PLATEAU}}

    def _step(self, batch: Batch, stage: str) -> Tensor:
        """Give a batch's loss, and remember what the epoch's metrics need: that costs less than updating them."""
        logits = self(batch["input"]) if stage == "train" else self.answer(batch["input"])
        self.seen[stage].append((logits.detach(), batch["label"], batch["index"]))
        return self._loss(logits, batch["label"], stage)

    def _loss(self, logits: Tensor, label: Tensor, stage: str) -> Tensor:
        """Give the cross entropy, in training with its class weights and smoothed labels."""
        options = (self.class_weights, self.label_smoothing) if stage == "train" else (None, 0.0)
        return weighted_cross_entropy(logits, label, *options)

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


def split(batch: Batch, size: int) -> list[Batch]:
    """Split a batch into smaller ones of `size` images; the last may have fewer."""
    if size >= len(batch["label"]):
        return [batch]
    parts = zip(*(torch.split(tensor, size) for tensor in batch.values()), strict=True)
    return [dict(zip(batch, part, strict=True)) for part in parts]
