"""Predictions for N labelled images, for two or more classes."""

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
MIN_PROBABILITY = 1e-7  # single precision is inexact for probabilities closer to 0 or 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N images of C classes; the first class is negative, all others are positive (pneumonia)."""

    probability: Array  # probability of each class, (N, C)
    label: Labels  # index of each image's true class, (N,)
    predicted: Labels  # index of the predicted class, (N,)
    classes: tuple[str, ...] = ()  # names of the classes; may lack classes that never occur
    # Log odds of each class, (N, C). They rank images whose probabilities round to the same number. None: not recorded,
    # as in runs of early versions.
    odds: Array | None = None
    paths: tuple[str, ...] = ()  # paths of the images, relative to the data's root; may be empty
    patients: tuple[str, ...] = ()  # patient of each image; empty: each image counts as one patient
    subtypes: tuple[str, ...] = ()  # bacterial, viral, or any other string for neither; may be empty

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
        """Build binary predictions from arrays (N,); probability and margin are those of the positive class."""
        odds = None if margin is None else np.stack([-margin, margin], axis=1)
        columns = np.stack([1 - probability, probability], axis=1)
        return cls(columns, positive.astype(np.int64), predicted.astype(np.int64), classes, odds, paths, patients)

    @property
    def is_binary(self) -> bool:
        """True for two classes, where the threshold determines the predicted class."""
        return bool(self.probability.shape[1] == 2)

    @property
    def positive(self) -> npt.NDArray[np.bool_]:
        """True for images of a positive class, (N,)."""
        return self.label > 0

    @property
    def has_both_classes(self) -> bool:
        """True if there are positive and negative images, as ranking metrics require."""
        return bool(self.positive.any() and not self.positive.all())

    @property
    def positive_probability(self) -> Array:
        """Total probability of the positive classes, (N,)."""
        total: Array = self.probability[:, 1:].sum(axis=1)
        return total

    @property
    def margin(self) -> Array | None:
        """Log odds of the positive classes against the negative class, (N,)."""
        return None if self.odds is None else -self.odds[:, 0]

    @property
    def score(self) -> Array:
        """Ranking score of the positive classes, (N,): the margin if it was recorded, otherwise the probability."""
        return self.positive_probability if self.margin is None else self.margin

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """True for images whose predicted class is the true class, (N,)."""
        return np.equal(self.label, self.predicted)

    @property
    def confidence(self) -> Array:
        """Probability of the positive class; with three or more classes, of the predicted class, (N,)."""
        index = np.ones_like(self.predicted) if self.is_binary else self.predicted
        return self.probability[np.arange(len(index)), index]

    @property
    def confidence_target(self) -> npt.NDArray[np.bool_]:
        """True for images of the class to which `confidence` refers, (N,)."""
        return self.positive if self.is_binary else self.correct

    @cached_property
    def clusters(self) -> Clusters:
        """Index of each image's patient, (N,); without patients, each image is one cluster."""
        return number_clusters(self.patients) if self.patients else np.arange(len(self.label))

    @cached_property
    def order(self) -> Labels:
        """Indices of the images by descending score, (N,)."""
        return np.argsort(-self.score, kind="stable")

    @cached_property
    def one_vs_rest(self) -> dict[str, Predictions]:
        """One-vs-rest predictions by class name; with two classes, only for the positive class."""
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

    def as_binary(self) -> Predictions:
        """Return predictions of all positive classes together against the negative class; self if already binary."""
        if self.is_binary:
            return self
        binary = Predictions.binary(
            np.minimum(self.positive_probability, 1.0),  # the sum of rounded probabilities may exceed 1
            self.positive,
            self.predicted > 0,
            (self.classes[0], " or ".join(self.classes[1:])) if self.classes else ("", ""),
            self.paths,
            self.margin,
            self.patients,
        )
        return replace(binary, subtypes=self.subtypes)

    def take(self, index: Labels) -> Predictions:
        """Return the predictions for the images at `index`, (n,)."""

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
        """Sort the images by path, so that predictions of several runs can be compared image by image."""
        return self.take(np.array(sorted(range(len(self.paths)), key=lambda i: self.paths[i]), np.int64))


def predict_classes(probability: npt.NDArray[np.floating[Any]], threshold: float) -> Labels:
    """Predict classes, (N,): by the threshold for two classes, otherwise the most probable class.

    Args:
        probability: Probabilities (N, C) in single precision, like networks', since they may equal the threshold.
        threshold: With two classes, the second is predicted above it.
    """
    return (probability[:, 1] > threshold).astype(np.int64) if probability.shape[1] == 2 else probability.argmax(axis=1)


def log_odds(margins: Array) -> Array:
    """Compute log odds of the mean probabilities, (...), from margins, (M, ...), without saturation."""
    odds: Array = logsumexp(log_expit(margins), axis=0) - logsumexp(log_expit(-margins), axis=0)
    return odds


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Concatenate predictions for several sets of images; fields that are missing in one are dropped."""

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
    """Compute each image's distance in logits to the decision boundary, (N,).

    Args:
        probability: Probability of each class, (N, C).
        threshold: With two classes, the second is predicted above it. Unused with more classes.
        odds: Log odds, (N, C), used instead of `probability` if given, since they do not saturate.
    """
    exact = np.clip(probability.astype(np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    if probability.shape[1] == 2:
        margin = logit(exact[:, 1]) if odds is None else odds[:, 1]
        return np.asarray(np.abs(margin - logit(np.clip(threshold, MIN_PROBABILITY, 1 - MIN_PROBABILITY))))
    ranked = np.sort(np.log(exact) if odds is None else log_expit(odds), axis=1)
    return np.asarray(ranked[:, -1] - ranked[:, -2])
