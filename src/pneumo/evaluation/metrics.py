"""Metrics: of two classes, the second of which, PNEUMONIA, is the positive one, and of more."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import MeanSquaredError, Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryCalibrationError,
    BinaryF1Score,
    BinaryRecall,
    BinarySpecificity,
    BinaryStatScores,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
    MulticlassRecall,
    MulticlassSpecificity,
)
from torchmetrics.utilities import dim_zero_cat

from pneumo.evaluation.calibration import calibration_error


class BinaryScoreAUROC(BinaryAUROC):
    """AUROC that ranks by a score; torchmetrics' own applies a sigmoid to it in single precision, which saturates."""

    def update(self, preds: Tensor, target: Tensor, score: Tensor | None = None) -> None:
        """Add scores (N,), or where there are none the probabilities, and labels (N,)."""
        self.preds.append(preds if score is None else score)
        self.target.append(target)


class BinaryScoreAveragePrecision(BinaryAveragePrecision):
    """Average precision that ranks by a score; see `BinaryScoreAUROC`."""

    update = BinaryScoreAUROC.update


class MulticlassScoreAUROC(MulticlassAUROC):
    """AUROC of each class against the rest that ranks by scores (N, classes); see `BinaryScoreAUROC`."""

    update = BinaryScoreAUROC.update


class MulticlassScoreAveragePrecision(MulticlassAveragePrecision):
    """Average precision of each class against the rest; see `MulticlassScoreAUROC`."""

    update = BinaryScoreAUROC.update


class BinaryBalancedAccuracy(BinaryStatScores):
    """Mean of sensitivity and specificity, which torchmetrics has for several classes only."""

    def compute(self) -> Tensor:
        """Give the mean over the two classes of the share that was recognised; 0 stands in for an absent class."""
        tp, fp, tn, fn = (count.float() for count in self._final_state())  # Apple's GPUs have no float64
        return torch.stack((tp / (tp + fn), tn / (tn + fp))).nan_to_num(0.0).mean()


class BinaryMCC(BinaryStatScores):
    """Matthews' correlation coefficient; torchmetrics' own is not 0 when every answer is the same."""

    def compute(self) -> Tensor:
        """Give the correlation of answers and labels, 0 if either never varies."""
        tp, fp, tn, fn = (count.float() for count in self._final_state())
        answers, labels = (tp + fp) * (tn + fn), (tp + fn) * (tn + fp)  # multiplied so, 1 and -1 come out exactly
        return ((tp * tn - fp * fn) / (answers * labels).sqrt()).nan_to_num(0.0)


class BinaryExpectedCalibrationError(BinaryCalibrationError):
    """Expected calibration error by the bins of `pneumo.evaluation.calibration`, which its interval has too."""

    def compute(self) -> Tensor:
        """Compute the error over the images of all batches."""
        return _calibration_error(self.confidences, self.accuracies)


class MulticlassExpectedCalibrationError(MulticlassCalibrationError):
    """Expected calibration error of the predicted class; see `BinaryExpectedCalibrationError`."""

    def compute(self) -> Tensor:
        """Compute the error over the images of all batches."""
        return _calibration_error(self.confidences, self.accuracies)


def _calibration_error(confidences: list[Tensor], right: list[Tensor]) -> Tensor:
    probability, hit = dim_zero_cat(confidences), dim_zero_cat(right)
    error = calibration_error(probability.cpu().double().numpy(), hit.cpu().bool().numpy())
    return torch.tensor(error, dtype=torch.float32, device=probability.device)


class MulticlassBrier(Metric):
    """Brier's score of several classes: the squared errors of their probabilities, summed over classes."""

    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        """Begin with no image."""
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add probabilities (N, classes) and labels (N,)."""
        self.total += (preds - one_hot(target, preds.shape[1])).square().sum()
        self.images += len(target)

    def compute(self) -> Tensor:
        """Give the mean over images."""
        return self.total / self.images


def make_metrics(classes: int, threshold: float) -> MetricCollection:
    """Make the metrics of one stage.

    Args:
        classes: Their number; more than two have macro averages where an average is needed, and AUROC is one against
            the rest.
        threshold: Of two classes, an image is called positive above this probability; of more, the likeliest is called.

    Returns:
        Metrics of labels (N,) and probabilities: of the positive class (N,), or of each of several, (N, classes).
        AUROC and average precision rank by `score`, a further argument like the probabilities, where it is given.
    """
    return binary_metrics(threshold) if classes == 2 else multiclass_metrics(classes)


def multiclass_metrics(classes: int) -> MetricCollection:
    """Make the metrics of one stage of several classes; see `make_metrics`."""
    options: dict[str, Any] = {"num_classes": classes, "validate_args": False}
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(average="micro", **options),
            "auroc": MulticlassScoreAUROC(**options),
            "sensitivity": MulticlassRecall(**options),
            "specificity": MulticlassSpecificity(**options),
            "balanced_accuracy": MulticlassRecall(**options),
            "auprc": MulticlassScoreAveragePrecision(**options),
            "f1": MulticlassF1Score(**options),
            "mcc": MulticlassMatthewsCorrCoef(**options),
            "ece": MulticlassExpectedCalibrationError(**options),
            "brier": MulticlassBrier(),
        }
    )


def binary_metrics(threshold: float) -> MetricCollection:
    """Make the metrics of one stage; they take probabilities (N,) of the positive class and labels (N,).

    Args:
        threshold: An image is called positive above this probability.
    """
    # Checking each batch's values would make the host wait for the device.
    return MetricCollection(
        {
            "accuracy": BinaryAccuracy(threshold, validate_args=False),
            "auroc": BinaryScoreAUROC(validate_args=False),
            "sensitivity": BinaryRecall(threshold, validate_args=False),
            "specificity": BinarySpecificity(threshold, validate_args=False),
            "balanced_accuracy": BinaryBalancedAccuracy(threshold, validate_args=False),
            "auprc": BinaryScoreAveragePrecision(validate_args=False),
            "f1": BinaryF1Score(threshold, validate_args=False),
            "mcc": BinaryMCC(threshold, validate_args=False),
            "ece": BinaryExpectedCalibrationError(validate_args=False),
            "brier": MeanSquaredError(),
        }
    )
