"""What a run has answered to images, as predictions.csv and validation.csv hold it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit, logsumexp

from pneumo.data.splits import read_splits
from pneumo.evaluation.clusters import number_clusters
from pneumo.evaluation.prediction_files import damaged, read_predictions
from pneumo.evaluation.results import Results, confusion


class Answers(NamedTuple):
    """What a run has answered to N images.

    Attributes:
        probability: Of the positive class, (N,).
        positive: Whether the image is of that class, (N,).
        called: Whether it was called so, (N,).
        classes: The negative class and the positive one; a class that never comes has no name.
        paths: Of the images, relative to the data's root; empty where nobody asks.
        margin: Logit of the positive class, (N,), which ranks images whose probabilities round to the same number.
            None: a run of an earlier version did not record it.
        patients: Patient of each image; empty where every image counts as a patient of its own.
    """

    probability: npt.NDArray[np.float64]
    positive: npt.NDArray[np.bool_]
    called: npt.NDArray[np.bool_]
    classes: tuple[str, str] = ("", "")
    paths: tuple[str, ...] = ()
    margin: npt.NDArray[np.float64] | None = None
    patients: tuple[str, ...] = ()

    @property
    def score(self) -> npt.NDArray[np.float64]:
        """Ranking score, (N,): the margin where it was recorded, else the probability."""
        return self.probability if self.margin is None else self.margin

    @property
    def clusters(self) -> npt.NDArray[np.int64]:
        """Patient number of each image, (N,), from 0; images of unknown patients are clusters of their own."""
        if not self.patients:
            return np.arange(len(self.positive))
        return number_clusters(self.patients)

    def take(self, index: npt.NDArray[np.int64]) -> Answers:
        """Select images by their indices, (n,)."""
        return Answers(
            self.probability[index],
            self.positive[index],
            self.called[index],
            self.classes,
            tuple(self.paths[i] for i in index) if self.paths else (),
            None if self.margin is None else self.margin[index],
            tuple(self.patients[i] for i in index) if self.patients else (),
        )

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether the answer is the truth, (N,)."""
        return np.equal(self.positive, self.called)

    def by_path(self) -> Answers:
        """Put the images in the order of their paths, in which the answers of several runs lie beside each other."""
        return self.take(np.array(sorted(range(len(self.paths)), key=lambda i: self.paths[i]), np.int64))


def log_odds(margins: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Compute the log odds of mean probabilities from margins, (M, N) to (N,), without their saturation."""
    odds: npt.NDArray[np.float64] = logsumexp(log_expit(margins), axis=0) - logsumexp(log_expit(-margins), axis=0)
    return odds


def concatenate(parts: Sequence[Answers]) -> Answers:
    """Join the predictions for several sets of images; without margins if they are unknown for some of them."""
    margins = [part.margin for part in parts if part.margin is not None]
    return Answers(
        np.concatenate([part.probability for part in parts]),
        np.concatenate([part.positive for part in parts]),
        np.concatenate([part.called for part in parts]),
        parts[0].classes,
        tuple(path for part in parts for path in part.paths),
        np.concatenate(margins) if len(margins) == len(parts) else None,
        tuple(patient for part in parts for patient in part.patients) if all(part.patients for part in parts) else (),
    )


def read_answers(folder: Path, results: Results, name: str = "predictions.csv") -> Answers:
    """Read what a run has answered; of three classes it is told whether an image is of the first one or not.

    Args:
        folder: The run's.
        results: The run's; its threshold tells which answer is the positive one.
        name: predictions.csv, of the test images, or validation.csv, of the held-out ones.

    Raises:
        ConfigError: The file is missing or damaged.
    """
    table = read_predictions(folder / name)
    patients = _read_patients(folder, table.paths)
    # The run compared single precision; a threshold that is one of the probabilities must fall on the same side.
    probability = table.probability.astype(np.float32)
    margin = table.margins[:, 0] if table.margins.size else None
    if table.classes:  # of three classes all but the first are positive
        first = table.classes[0]
        positive, called = (np.array([x != first for x in names], bool) for names in (table.label, table.prediction))
        odds = None if margin is None else -margin
        classes = (first, "any other")
        if name == "predictions.csv":
            _check_counts(folder / name, positive, called, results)
        return Answers(probability.astype(np.float64), positive, called, classes, table.paths, odds, patients)
    called = probability > np.float32(float(results["threshold"]))
    right = np.array([truth == answer for truth, answer in zip(table.label, table.prediction, strict=True)], bool)
    positive = called == right  # whatever the classes' names
    if len({*zip(table.label, positive.tolist(), strict=True)}) > len(set(table.label)):
        raise damaged(
            folder / name, f"its predictions are not those of the threshold {results['threshold']} of results.json"
        )
    if name == "predictions.csv":
        _check_counts(folder / name, positive, called, results)
    names = [
        next((label for label, is_it in zip(table.label, positive, strict=True) if is_it == x), "") for x in (0, 1)
    ]
    return Answers(
        probability.astype(np.float64), positive, called, (names[0], names[1]), table.paths, margin, patients
    )


class ClassAnswers(NamedTuple):
    """What a run of three classes has answered to N images.

    Attributes:
        label: From 0, (N,).
        probability: Of each class, (N, classes).
        prediction: As label, (N,).
        classes: Their names.
        paths: Of the images, as in Answers.
        margin: Log odds of each class, (N, classes); None: a run of an earlier version did not record them.
        patients: As in Answers.
    """

    label: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]
    prediction: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    paths: tuple[str, ...] = ()
    margin: npt.NDArray[np.float64] | None = None
    patients: tuple[str, ...] = ()

    def against_rest(self) -> dict[str, Answers]:
        """Give each class, by its name, as the positive one of two."""
        return {
            name: Answers(
                self.probability[:, k],
                self.label == k,
                self.prediction == k,
                ("the rest", name),
                self.paths,
                None if self.margin is None else self.margin[:, k],
                self.patients,
            )
            for k, name in enumerate(self.classes)
        }


def read_class_answers(folder: Path, results: Results) -> ClassAnswers:
    """Read the predictions.csv of a run of three classes.

    Args:
        folder: The run's.
        results: The run's.

    Raises:
        ConfigError: The file is missing or damaged, or has no columns of classes.
    """
    table = read_predictions(folder / "predictions.csv")
    if not table.classes:
        raise damaged(folder / "predictions.csv", "it has no columns of classes")
    label, prediction = (
        np.array([table.classes.index(name) for name in names]) for names in (table.label, table.prediction)
    )
    _check_counts(folder / "predictions.csv", label > 0, prediction > 0, results)
    margin = table.margins if table.margins.size else None
    patients = _read_patients(folder, table.paths)
    return ClassAnswers(label, table.shares, prediction, table.classes, table.paths, margin, patients)


def _check_counts(path: Path, positive: npt.NDArray[np.bool_], called: npt.NDArray[np.bool_], results: Results) -> None:
    """Refuse a predictions.csv of other images or predictions than results.json counts."""
    counts = confusion(positive.astype(np.int64), called.astype(np.int64))
    for name in counts.keys() - {"collapsed"}:
        if counts[name] != results[name]:
            raise damaged(path, f"its {name} is {counts[name]}, and results.json has {results[name]}")


def _read_patients(folder: Path, paths: Sequence[str]) -> tuple[str, ...]:
    """Read the patients of images from a run's splits.csv; nothing if there is none."""
    if not (folder / "splits.csv").is_file():
        return ()
    patient = {line["path"]: line["patient"] for line in read_splits(folder)}
    return tuple(patient.get(path, path) for path in paths)


def called(
    answers: Answers | ClassAnswers,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Give truth and answer as numbers of classes, and the probability that is shown with them, (N,) each.

    It is that of the positive class, or, of three, that of the class that was called.
    """
    if isinstance(answers, ClassAnswers):
        share = answers.probability[np.arange(len(answers.label)), answers.prediction]
        return answers.label, answers.prediction, share
    return answers.positive.astype(np.int64), answers.called.astype(np.int64), answers.probability
