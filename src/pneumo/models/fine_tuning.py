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

_PARTS = 4  # parts of a backbone with different learning rates
PLATEAU = "val/loss"  # the metric that torch's ReduceLROnPlateau monitors
_INVERSE_PENALTY = 0.001  # scikit-learn's C, for standardized features
MakeOptimizer = Callable[[Iterable[Any]], Optimizer]


@dataclass(frozen=True)
class FineTuning:
    """Options for training a pretrained backbone; the group `fine_tuning` of conf/train.yaml."""

    warm_up: bool  # fit the head first, on features of the frozen backbone; see `fit_head`
    lr_decay: float  # see `parameter_groups`; 1.0: the same learning rate for all layers


class OneCycle:
    """A per-batch learning-rate schedule: warm-up to the full rate, then decay to almost 0, both along a cosine.

    Source: Smith and Topin, Super-Convergence (2018), by torch.optim.lr_scheduler.OneCycleLR; the momentum is constant.
    """

    def __init__(self, warm_up: float) -> None:
        """Initialize with the fraction of all steps used for the warm-up, above 0 and below 1."""
        if not 0 < warm_up < 1:
            raise ConfigError(
                f"scheduler.warm_up={warm_up} is out of range: it must be above 0 and below 1. Use a value such as 0.1."
            )
        self.warm_up = warm_up

    def __call__(self, optimizer: Optimizer, steps: int = 100) -> LRScheduler:
        """Build the schedule of an optimizer; each parameter group peaks at its own learning rate."""
        rates, steps = [group["lr"] for group in optimizer.param_groups], max(steps, 4)
        warm_up = min(max(self.warm_up, 2 / steps), 1 - 1 / steps)  # torch divides by the number of steps in each phase
        return OneCycleLR(optimizer, rates, total_steps=steps, pct_start=warm_up, cycle_momentum=False)


MakeScheduler = Callable[[Optimizer], LRScheduler] | OneCycle


@dataclass(frozen=True)
class TrainingOptions:
    """Training options of a classifier, which checkpoints do not store."""

    # Pretrained weights of the backbone; see `pneumo.models.weights.load_weights`. None: random weights.
    weights: str | None = None
    label_smoothing: float = 0.0  # fraction of each label that is spread over all classes
    class_weights: Sequence[float] | None = None  # weights in the training loss, (classes,); None: equal weights
    fine_tuning: FineTuning | None = None  # None: the backbone is trained like any other layer
    # Builds the optimizer from parameters; required for training only.
    optimizer: MakeOptimizer | None = None
    # Builds the learning-rate scheduler, stepped once per epoch, or once per batch for OneCycle.
    scheduler: MakeScheduler | None = None
    batch_size: int | None = None  # images per optimizer step of a `HeadClassifier`, whose batches are larger


def parameter_groups(backbone: nn.Module, head: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Group parameters for an optimizer, with lower learning rates for a backbone's earlier layers.

    The backbone is divided into four parts with equal numbers of layers, in the order of registration, which for
    classifiers is the order of the forward pass. The head uses the full learning rate, each part `decay` times the rate
    of the next part; `lr_scale` is the factor of a group. Frozen parameters are omitted. Source: discriminative
    fine-tuning, Howard and Ruder, ULMFiT (2018).
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
    """Fit a linear head as a logistic regression, in place, as the starting point of training.

    A random head causes large gradients in the backbone, which then loses features that generalize beyond the training
    data. Source: Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution (2022).

    Args:
        head: Linear layer from D features to the logits of all classes.
        features: Features of the training images from the frozen backbone, (N, D).
        label: Class indices, (N,).
        balance: Weight the classes equally.
    """
    regression = LogisticRegression(C=_INVERSE_PENALTY, class_weight="balanced" if balance else None, max_iter=2_000)
    scaler = StandardScaler()
    regression.fit(scaler.fit_transform(features.astype(np.float64)), label)
    weight, bias = regression.coef_ / scaler.scale_, regression.intercept_
    bias = bias - weight @ scaler.mean_
    if len(weight) == 1:  # for two classes, scikit-learn returns only the difference
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))


def class_weights(label: Sequence[int], classes: int) -> list[float]:
    """Compute inverse-frequency class weights: equal total weight per class, mean weight 1 per image."""
    count = np.bincount(np.asarray(label), minlength=classes)
    weights: list[float] = (len(label) / (classes * np.maximum(count, 1))).tolist()
    return weights
