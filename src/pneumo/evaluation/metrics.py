"""Metrics of a two-class task; the second class, PNEUMONIA, is the positive one."""

import torch
from torch import Tensor
from torchmetrics import MeanSquaredError, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryCalibrationError,
    BinaryF1Score,
    BinaryRecall,
    BinarySpecificity,
    BinaryStatScores,
)


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


def binary_metrics(threshold: float) -> MetricCollection:
    """Make the metrics of one stage; they take probabilities (N,) of the positive class and labels (N,).

    Args:
        threshold: An image is called positive above this probability.
    """
    # Checking each batch's values would make the host wait for the device.
    return MetricCollection(
        {
            "accuracy": BinaryAccuracy(threshold, validate_args=False),
            "auroc": BinaryAUROC(validate_args=False),
            "sensitivity": BinaryRecall(threshold, validate_args=False),
            "specificity": BinarySpecificity(threshold, validate_args=False),
            "balanced_accuracy": BinaryBalancedAccuracy(threshold, validate_args=False),
            "auprc": BinaryAveragePrecision(validate_args=False),
            "f1": BinaryF1Score(threshold, validate_args=False),
            "mcc": BinaryMCC(threshold, validate_args=False),
            "ece": BinaryCalibrationError(n_bins=15, validate_args=False),
            "brier": MeanSquaredError(),
        }
    )
