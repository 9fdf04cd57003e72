"""The LightningModule: any backbone and a head, trained as a classifier."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import CatMetric, MeanMetric, MetricCollection

from pneumo.evaluation.metrics import binary_metrics
from pneumo.hardware import choose_memory_format
from pneumo.models.backbone import build, freeze_module

MakeOptimizer = Callable[[Iterator[nn.Parameter]], Optimizer]
MakeScheduler = Callable[[Optimizer], LRScheduler]
Batch = dict[str, Tensor]


class _Seen(NamedTuple):
    """What is kept of a batch until its epoch is measured."""

    logits: Tensor
    label: Tensor


class Classifier(LightningModule):
    """A backbone and a linear head, trained by cross entropy.

    A checkpoint of it needs nothing else: `Classifier.load_from_checkpoint(path)` rebuilds the architecture by its name
    and takes all weights from the file.
    """

    def __init__(
        self,
        architecture: str,
        classes: Sequence[str],
        image_size: int,
        weights: str | None = None,
        freeze: bool = False,
        head_path: str | None = None,
        threshold: float = 0.5,
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
    ) -> None:
        """Build the network.

        Args:
            architecture: SOURCE/NAME, such as torchvision/resnext50_32x4d, timm/convnext_tiny or pneumo/xraychestnet.
            classes: Names of the two classes; the second is the positive one.
            image_size: Height and width of the images in pixels.
            weights: Pretrained weights of the backbone; see `pneumo.models.weights.load_weights`. None: random ones.
            freeze: Train the head alone.
            head_path: Dotted path of the layer that the head replaces; None is the last linear layer.
            threshold: An image is called positive above this probability.
            optimizer: Makes the optimizer of the parameters that it is given; needed for training only.
            scheduler: Makes its learning-rate schedule, stepped once an epoch.
        """
        super().__init__()
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.hparams["weights"] = None  # a checkpoint holds its own, and must open without the original ones
        self.classes = list(classes)
        self.image_size = image_size
        self.frozen = freeze
        self.backbone, self.head = build(architecture, weights, head_path, image_size, len(self.classes))
        if freeze:
            freeze_module(self.backbone)
        # A checkpoint opens on the CPU and shall compute there as its run did, to the last bit.
        self.backbone.to(memory_format=choose_memory_format("cpu", frozen=freeze))
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        metrics = binary_metrics(threshold)
        self.train_metrics = metrics.clone(prefix="train/")
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")
        self.train_loss, self.val_loss, self.test_loss = (MeanMetric("disable") for _ in range(3))  # NaN shall show
        self.test_index, self.test_probability = CatMetric(), CatMetric()  # they know how to gather from all processes
        self.seen: dict[str, list[_Seen]] = {"train": [], "val": [], "test": []}
        self.step_size: int | None = None
        self.tested: Batch = {}

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 1, H, W) uint8, or features (N, D) of the backbone, to logits (N, classes)."""
        features = x if x.ndim == 2 else self.backbone(x)
        logits: Tensor = self.head(features)
        return logits

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
        """See a test batch, and keep which images were in it."""
        self._step(batch, "test")
        self.test_index.update(batch["index"])

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Give each image's probability of the positive class, (N,)."""
        return positive_probability(self(batch["input"]))

    def on_test_epoch_end(self) -> None:
        """Measure the test, and put what all processes have tested together in the data set's order, as `tested`."""
        self.test_probability.update(self._measure("test"))
        index, probability = self.test_index.compute().long(), self.test_probability.compute()
        order = index.argsort()
        self.tested = {"index": index[order].cpu(), "probability": probability[order].cpu()}
        self.test_index.reset()
        self.test_probability.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the epoch's metrics, so that a checkpoint tells how good it is."""
        checkpoint["metrics"] = {name: value.item() for name, value in self.trainer.callback_metrics.items()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer of the trainable parameters, and the schedule if there is one."""
        assert self.make_optimizer is not None, "training needs an optimizer"
        optimizer = self.make_optimizer(parameter for parameter in self.parameters() if parameter.requires_grad)
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}

    def _step(self, batch: Batch, stage: str) -> Tensor:
        """Give a batch's loss, and remember what the epoch's metrics need: that costs less than updating them."""
        logits, label = self(batch["input"]), batch["label"]
        loss = cross_entropy(logits, label)
        self.seen[stage].append(_Seen(logits.detach(), label))
        return loss

    def _measure(self, stage: str) -> Tensor:
        """Log an epoch's loss and metrics, and give the probabilities that were measured, (N,)."""
        logits, label = map(torch.cat, zip(*self.seen[stage], strict=True))
        probability = positive_probability(logits)
        loss: MeanMetric = getattr(self, f"{stage}_loss")
        loss.update(cross_entropy(logits.float(), label), len(label))
        metrics: MetricCollection = getattr(self, f"{stage}_metrics")
        metrics.update(probability, label)
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True)
        self.log_dict(metrics, on_step=False, on_epoch=True)
        self.seen[stage].clear()
        return probability


def split(batch: Batch, size: int) -> list[Batch]:
    """Split a batch into smaller ones of `size` images; the last may have fewer."""
    if size >= len(batch["label"]):
        return [batch]
    parts = zip(*(torch.split(tensor, size) for tensor in batch.values()), strict=True)
    return [dict(zip(batch, part, strict=True)) for part in parts]


def positive_probability(logits: Tensor) -> Tensor:
    """Map logits (N, 2) to the probability of the second class (N,), in float32."""
    return torch.softmax(logits.float(), dim=1)[:, 1]
