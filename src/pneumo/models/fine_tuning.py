"""Fine-tuning options: head warm-up, layer-wise learning rates, one-cycle schedule, class weights."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from pneumo.errors import ConfigError

_PARTS = 4  # of a backbone that learn at different rates
PLATEAU = "val/loss"  # the metric that torch's ReduceLROnPlateau monitors
_STRENGTH = 0.001  # inverse of the ridge penalty, on standardised features
MakeOptimizer = Callable[[Iterable[Any]], Optimizer]


@dataclass(frozen=True)
class FineTuning:
    """How a pretrained backbone is trained; the group `fine_tuning` of conf/train.yaml."""

    warm_up: bool  # train the head alone first, on the features of the frozen backbone; see `fit_head`
    lr_decay: float  # see `parameter_groups`; 1.0: all layers learn at one rate


class OneCycle:
    """A schedule that is stepped after each batch: a linear warm-up from almost nothing, then a cosine down to nothing.

    Source: Smith and Topin, Super-Convergence (2018), as in torch.optim.lr_scheduler.OneCycleLR; momentum stays.
    """

    def __init__(self, warm_up: float) -> None:
        """Set the fraction of all steps in which the rate rises, above 0 and below 1."""
        if not 0 < warm_up < 1:
            raise ConfigError(f"scheduler.warm_up={warm_up} must be a fraction of the steps above 0 and below 1.")
        self.warm_up = warm_up

    def __call__(self, optimizer: Optimizer, steps: int = 100) -> LRScheduler:
        """Make the schedule of an optimizer, each of whose groups peaks at its own rate."""
        rates, steps = [group["lr"] for group in optimizer.param_groups], max(steps, 4)
        warm_up = min(max(self.warm_up, 2 / steps), 1 - 1 / steps)  # torch divides by the steps within each part
        return OneCycleLR(optimizer, rates, total_steps=steps, pct_start=warm_up, cycle_momentum=False)


MakeScheduler = Callable[[Optimizer], LRScheduler] | OneCycle


@dataclass(frozen=True)
class TrainingOptions:
    """How a classifier is trained; no checkpoint holds any of it."""

    # Pretrained weights of the backbone; see `pneumo.models.weights.load_weights`. None: random ones.
    weights: str | None = None
    label_smoothing: float = 0.0  # fraction of each label that is spread over all classes
    class_weights: Sequence[float] | None = None  # of the classes in the training loss, (classes,); None: one each
    fine_tuning: FineTuning | None = None  # how a pretrained backbone is trained; None: as any other layers
    # Makes the optimizer of the parameters that it is given; needed for training only.
    optimizer: MakeOptimizer | None = None
    # Makes its learning-rate schedule, stepped once an epoch, or, if it is a OneCycle, once a batch.
    scheduler: MakeScheduler | None = None
    batch_size: int | None = None  # images of an optimizer step, where a `HeadClassifier` gets more at once


def parameter_groups(backbone: nn.Module, head: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Group parameters for an optimizer so that a backbone's lower layers learn more slowly, the input's side slowest.

    The backbone is divided into four parts of as many layers, in the order in which they are registered, which in
    classifiers is that of the data's way. The head learns at the full rate, each part below at `decay` times the rate
    of the one above: `lr_scale` is a group's factor. Frozen parameters are left out. Source: discriminative fine-
    tuning, Howard and Ruder, ULMFiT (2018).
    """
    layers = [layer for layer in backbone.modules() if any(True for _ in layer.parameters(recurse=False))]
    groups = []
    for i in range(_PARTS):
        part = layers[i * len(layers) // _PARTS : (i + 1) * len(layers) // _PARTS]
        parameters = [p for layer in part for p in layer.parameters(recurse=False) if p.requires_grad]
        if parameters:
            groups.append({"params": parameters, "lr_scale": decay ** (_PARTS - i)})
    return [*groups, {"params": list(head.parameters()), "lr_scale": 1.0}]


def fit_head(head: nn.Linear, features: npt.NDArray[np.float32], label: npt.NDArray[np.int64], balance: bool) -> None:
    """Fit a linear head as a logistic regression, in place, so that training does not begin with a random one.

    A random head sends large gradients into the backbone, which then loses features that held outside of the training
    data. Source: Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution (2022).

    Args:
        head: Of `label`'s classes.
        features: Of the training images, from the frozen backbone, (N, D).
        label: From 0, (N,).
        balance: Give each class the same weight in all.
    """
    regression = LogisticRegression(C=_STRENGTH, class_weight="balanced" if balance else None, max_iter=2_000)
    scaler = StandardScaler()
    regression.fit(scaler.fit_transform(features.astype(np.float64)), label)
    weight, bias = regression.coef_ / scaler.scale_, regression.intercept_
    bias = bias - weight @ scaler.mean_
    if len(weight) == 1:  # of two classes scikit-learn gives the difference only
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))


def class_weights(label: Sequence[int], classes: int) -> list[float]:
    """Weight classes by their inverse frequency, so that each counts the same in all and an image 1 on average."""
    count = np.bincount(np.asarray(label), minlength=classes)
    weights: list[float] = (len(label) / (classes * np.maximum(count, 1))).tolist()
    return weights
