"""Shortcut probes: gradient-boosted trees that predict labels from features that should not reveal them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedGroupKFold

from pneumo.audit.properties import LoadedImages
from pneumo.common.terminal import track
from pneumo.data.splits import join_groups
from pneumo.metrics.bootstrap import Resamples, percentiles
from pneumo.metrics.definitions import auroc
from pneumo.metrics.intervals import Interval
from pneumo.metrics.predictions import Predictions

Floats = NDArray[np.float64]
_FRAME = 8  # width of the outer frame in pixels of a thumbnail: a sixteenth of the image
_SEGMENTS = 8  # per side of the frame
_COARSE = 8  # side of the coarse thumbnail in pixels
_FOLDS, _DRAWS = 5, 400  # of the cross-validation and of the bootstrap


@dataclass(frozen=True)
class Probe:
    """Cross-validated AUROC of a shortcut classifier."""

    name: str  # metadata, shape, frame or thumbnail
    # Out-of-fold AUROC; with more than two classes, the one-vs-rest mean. None for one class or too few patients.
    auroc: float | None
    low: float | None  # lower end of its 95 % interval, from a bootstrap over patients
    high: float | None  # upper end


def probe_shortcuts(images: LoadedImages, duplicates: NDArray[np.int64]) -> list[Probe]:
    """Compute the AUROC of labels predicted from metadata, shape, outer frame and an 8 x 8 thumbnail.

    Args:
        images: N readable images.
        duplicates: The duplicate group of each image, shape (N,).
    """
    # Folds must not separate duplicates or images of one patient.
    groups = join_groups([file.patient or file.path for file in images.files], duplicates.tolist())
    features = {
        "metadata": _metadata(images),
        "shape": np.array([[info.width / info.height] for info in images.infos]),
        "frame": _frame(images),
        "thumbnail": _thumbnail(images),
    }
    probes = []
    with track("Probing for shortcuts", len(features)) as update:
        for done, (name, rows) in enumerate(features.items(), 1):
            probes.append(_probe(name, rows, images.labels, groups))
            update(done)
    return probes


def _metadata(images: LoadedImages) -> Floats:
    """Return width, height, file size, bytes per pixel and mode of each image."""
    modes = sorted({info.mode for info in images.infos})
    rows = [
        (info.width, info.height, file.size, file.size / (info.width * info.height), modes.index(info.mode))
        for file, info in images.pairs
    ]
    return np.array(rows, np.float64)


def _frame(images: LoadedImages) -> Floats:
    """Compute the mean and standard deviation of eight segments per side of the outer frame."""
    thumbnails = images.thumbnails
    features = []
    for rows in (thumbnails, thumbnails.swapaxes(1, 2)):
        for side in (rows[:, :_FRAME], rows[:, -_FRAME:]):
            segments = side.reshape(len(thumbnails), _FRAME, _SEGMENTS, -1).astype(np.float32)
            features += [segments.mean((1, 3)), segments.std((1, 3))]
    return np.concatenate(features, axis=1).astype(np.float64)


def _thumbnail(images: LoadedImages) -> Floats:
    count, height, width = images.thumbnails.shape
    blocks = images.thumbnails.reshape(count, _COARSE, height // _COARSE, _COARSE, width // _COARSE)
    return np.asarray(blocks.mean((2, 4), dtype=np.float64).reshape(count, -1), np.float64)


def _probe(name: str, rows: Floats, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> Probe:
    classes, labels = np.unique(labels, return_inverse=True)
    patients = [len(np.unique(groups[labels == label])) for label in range(len(classes))]
    folds = min(_FOLDS, *patients) if len(classes) > 1 else 0
    if folds < 2:
        return Probe(name, None, None, None)
    if not np.ptp(rows, axis=0).any():
        return Probe(name, 0.5, 0.5, 0.5)  # constant features carry no information
    probabilities = np.zeros((len(rows), len(classes)))
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(rows, labels, groups):
        if len(np.unique(labels[train])) < len(classes):
            return Probe(name, None, None, None)
        model = HistGradientBoostingClassifier(random_state=0).fit(rows[train], labels[train])
        probabilities[test] = model.predict_proba(rows[test])
    predictions = Predictions(probabilities, labels, probabilities.argmax(1))
    return Probe(name, float(auroc(Resamples(predictions))[0]), *_interval(predictions, groups))


def _interval(predictions: Predictions, groups: NDArray[np.int64]) -> Interval:
    random, count = np.random.default_rng(0), int(groups.max()) + 1
    areas: list[float] = []
    while len(areas) < _DRAWS:
        weights = np.bincount(random.integers(0, count, count), minlength=count)[groups].astype(np.float64)
        if len(np.unique(predictions.label[weights > 0])) == predictions.probability.shape[1]:
            areas.append(float(auroc(Resamples(predictions, weights[None]))[0]))
    return percentiles(np.array(areas))
