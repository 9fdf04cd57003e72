"""Predictions for N labelled images, with the same fields for two and more classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit, logit, logsumexp

from pneumo.metrics.clusters import Clusters, number_clusters
from pneumo.metrics.intervals import Array

Labels = npt.NDArray[np.int64]
_LEAST = 1e-7  # single precision is inexact for probabilities nearer to 0 or 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N images of C classes; the first class is negative, all others are positive (pneumonia)."""

    probability: Array  # probability of each class, (N, C)
    label: Labels  # class of each image, from 0, (N,)
    predicted: Labels  # predicted class, (N,)
    classes: tuple[str, ...] = ()  # names of the classes; a class that never occurs may have none
    # Log odds of each class, (N, C), which rank images whose probabilities round to the same number. None: a run of an
    # earlier version did not record them.
    odds: Array | None = None
    paths: tuple[str, ...] = ()  # paths of the images, relative to the data's root; may be empty
    patients: tuple[str, ...] = ()  # patient of each image; empty where every image counts as a patient of its own
    subtypes: tuple[str, ...] = ()  # bacterial, viral or anything else for neither; may be empty

    @classmethod
    def binary(
        cls,
        probability: Array,
        positive: npt.NDArray[np.bool_],
        predicted: npt.NDArray[np.bool_],
        classes: tuple[str, str] = ("", ""),
        paths: tuple[str, ...] = (),
        margin: Array | None = None,
        patients: tuple[str, ...] = (),
    ) -> Predictions:
        """Build predictions of two classes from probability, label, prediction and log odds of the positive, (N,)."""
        odds = None if margin is None else np.stack([-margin, margin], axis=1)
        columns = np.stack([1 - probability, probability], axis=1)
        return cls(columns, positive.astype(np.int64), predicted.astype(np.int64), classes, odds, paths, patients)

    @property
    def is_binary(self) -> bool:
        """Whether there are two classes, so that the threshold determines the predicted one."""
        return bool(self.probability.shape[1] == 2)

    @property
    def positive(self) -> npt.NDArray[np.bool_]:
        """Whether the image is of a positive class, (N,)."""
        return self.label > 0

    @property
    def has_both_classes(self) -> bool:
        """Whether there are positive and negative images, without which there is no ranking."""
        return bool(self.positive.any() and not self.positive.all())

    @property
    def positive_probability(self) -> Array:
        """Probability of all positive classes together, (N,)."""
        total: Array = self.probability[:, 1:].sum(axis=1)
        return total

    @property
    def margin(self) -> Array | None:
        """Log odds of all positive classes together, (N,)."""
        return None if self.odds is None else -self.odds[:, 0]

    @property
    def score(self) -> Array:
        """Ranking score of the positive classes, (N,): the margin where it was recorded, else the probability."""
        return self.positive_probability if self.margin is None else self.margin

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether the predicted class is the true one, (N,)."""
        return np.equal(self.label, self.predicted)

    @property
    def confidence(self) -> Array:
        """Probability of the positive class, or of three and more classes that of the predicted one, (N,)."""
        shown = np.ones_like(self.predicted) if self.is_binary else self.predicted
        return self.probability[np.arange(len(shown)), shown]

    @property
    def confirmed(self) -> npt.NDArray[np.bool_]:
        """Whether the image is of the class whose probability `confidence` is, (N,)."""
        return self.positive if self.is_binary else self.right

    @cached_property
    def clusters(self) -> Clusters:
        """Patient number of each image, (N,), from 0; images of unknown patients are clusters of their own."""
        return number_clusters(self.patients) if self.patients else np.arange(len(self.label))

    @cached_property
    def order(self) -> Labels:
        """Indices of the images by falling score, (N,)."""
        return np.argsort(-self.score, kind="stable")

    @cached_property
    def against_rest(self) -> dict[str, Predictions]:
        """Each class, by its name, as the positive one of two; of two classes the second alone."""
        if self.is_binary:
            return {self.classes[1] if self.classes else "": self}
        names = self.classes or tuple(map(str, range(self.probability.shape[1])))
        return {
            name: Predictions.binary(
                self.probability[:, k],
                self.label == k,
                self.predicted == k,
                ("the rest", name),
                self.paths,
                None if self.odds is None else self.odds[:, k],
                self.patients,
            )
            for k, name in enumerate(names)
        }

    def take(self, index: Labels) -> Predictions:
        """Select images by their indices, (n,)."""

        def pick(column: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(column[i] for i in index) if column else ()

        return replace(
            self,
            probability=self.probability[index],
            label=self.label[index],
            predicted=self.predicted[index],
            odds=None if self.odds is None else self.odds[index],
            paths=pick(self.paths),
            patients=pick(self.patients),
            subtypes=pick(self.subtypes),
        )

    def by_path(self) -> Predictions:
        """Sort the images by their paths, so that predictions of several runs are comparable image by image."""
        return self.take(np.array(sorted(range(len(self.paths)), key=lambda i: self.paths[i]), np.int64))


def predict_classes(probability: npt.NDArray[np.floating[Any]], threshold: float) -> Labels:
    """Predict classes, (N,), from probabilities (N, C): of two by the threshold, of more the likeliest.

    Args:
        probability: In single precision, in which networks predict: a probability may equal the threshold.
        threshold: Of two classes, the second is predicted above it.
    """
    return (probability[:, 1] > threshold).astype(np.int64) if probability.shape[1] == 2 else probability.argmax(axis=1)


def log_odds(margins: Array) -> Array:
    """Compute the log odds of mean probabilities from margins, (M, ...) to (...), without their saturation."""
    odds: Array = logsumexp(log_expit(margins), axis=0) - logsumexp(log_expit(-margins), axis=0)
    return odds


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Join predictions for several sets of images; what is unknown for some of them is unknown for all."""

    def join(columns: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(chain(*columns)) if all(columns) else ()

    odds = [part.odds for part in parts if part.odds is not None]
    return Predictions(
        np.concatenate([part.probability for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.predicted for part in parts]),
        parts[0].classes,
        np.concatenate(odds) if len(odds) == len(parts) else None,
        join([part.paths for part in parts]),
        join([part.patients for part in parts]),
        join([part.subtypes for part in parts]),
    )


def distance(probability: npt.NDArray[np.floating[Any]], threshold: float, odds: Array | None = None) -> Array:
    """Compute the distance of each image, in logits, from another predicted class, (N,).

    Args:
        probability: Probability of each class, (N, C).
        threshold: Of two classes, the second is predicted above it; of more classes the likeliest one is.
        odds: Log odds of the shape of `probability`, which they replace: they do not round to 0 or 1.
    """
    exact = np.clip(probability.astype(np.float64), _LEAST, 1 - _LEAST)
    if probability.shape[1] == 2:
        margin = logit(exact[:, 1]) if odds is None else odds[:, 1]
        return np.asarray(np.abs(margin - logit(np.clip(threshold, _LEAST, 1 - _LEAST))))
    ranked = np.sort(np.log(exact) if odds is None else log_expit(odds), axis=1)
    return np.asarray(ranked[:, -1] - ranked[:, -2])
