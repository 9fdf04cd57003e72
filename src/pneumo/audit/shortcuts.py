"""Shortcut probes: labels predicted from file properties alone, by gradient-boosted trees."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedGroupKFold

from pneumo.audit.properties import Pictures
from pneumo.common.terminal import track
from pneumo.data.splits import join_groups
from pneumo.metrics.bootstrap import Resamples, percentiles
from pneumo.metrics.definitions import auroc
from pneumo.metrics.intervals import Interval
from pneumo.metrics.predictions import Predictions

Floats = NDArray[np.float64]
_FRAME = 8  # width of the outer frame in pixels of a thumbnail: a sixteenth of the image
_SEGMENTS = 8  # along each side of the frame
_COARSE = 8  # side of the coarse thumbnail in pixels
_FOLDS, _DRAWS = 5, 400


@dataclass(frozen=True)
class Probe:
    """How well a classifier guesses labels that it was not trained on."""

    name: str  # metadata, shape, frame or thumbnail
    # Area under the ROC curve, out of fold; for several classes the mean over each against the rest. None where there
    # are too few patients or only one class.
    auroc: float | None
    low: float | None  # lower end of its 95 % interval, by the bootstrap over patients
    high: float | None  # upper end


def probe_shortcuts(pictures: Pictures, copies: NDArray[np.int64]) -> list[Probe]:
    """Guess labels from metadata, the shape, the outer frame and an 8 x 8 thumbnail; `copies` are groups, (N,)."""
    # No fold may divide films of one patient, or copies.
    groups = join_groups([file.patient or file.path for file in pictures.files], copies.tolist())
    features = {
        "metadata": _metadata(pictures),
        "shape": np.array([[picture.width / picture.height] for picture in pictures.pictures]),
        "frame": _frame(pictures),
        "thumbnail": _thumbnail(pictures),
    }
    probes = []
    with track("Looking for shortcuts", len(features)) as advance:
        for done, (name, rows) in enumerate(features.items(), 1):
            probes.append(_probe(name, rows, pictures.labels, groups))
            advance(done)
    return probes


def _metadata(pictures: Pictures) -> Floats:
    """Width, height, bytes, bytes per pixel and mode."""
    modes = sorted({picture.mode for picture in pictures.pictures})
    rows = [(p.width, p.height, f.size, f.size / (p.width * p.height), modes.index(p.mode)) for f, p in pictures.pairs]
    return np.array(rows, np.float64)


def _frame(pictures: Pictures) -> Floats:
    """Mean and standard deviation of each eighth of each side of the outer frame."""
    films = pictures.thumbnails
    rows = []
    for turned in (films, films.swapaxes(1, 2)):
        for side in (turned[:, :_FRAME], turned[:, -_FRAME:]):
            parts = side.reshape(len(films), _FRAME, _SEGMENTS, -1).astype(np.float32)
            rows += [parts.mean((1, 3)), parts.std((1, 3))]
    return np.concatenate(rows, axis=1).astype(np.float64)


def _thumbnail(pictures: Pictures) -> Floats:
    films = pictures.thumbnails
    blocks = films.reshape(len(films), _COARSE, films.shape[1] // _COARSE, _COARSE, films.shape[2] // _COARSE)
    return np.asarray(blocks.mean((2, 4), dtype=np.float64).reshape(len(films), -1), np.float64)


def _probe(name: str, rows: Floats, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> Probe:
    classes, labels = np.unique(labels, return_inverse=True)
    patients = [len(np.unique(groups[labels == label])) for label in range(len(classes))]
    folds = min(_FOLDS, *patients) if len(classes) > 1 else 0
    if folds < 2:
        return Probe(name, None, None, None)
    if not np.ptp(rows, axis=0).any():
        return Probe(name, 0.5, 0.5, 0.5)  # there is nothing to guess from
    guesses = np.zeros((len(rows), len(classes)))
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(rows, labels, groups):
        if len(np.unique(labels[train])) < len(classes):
            return Probe(name, None, None, None)
        model = HistGradientBoostingClassifier(random_state=0).fit(rows[train], labels[train])
        guesses[test] = model.predict_proba(rows[test])
    found = Predictions(guesses, labels, guesses.argmax(1))
    return Probe(name, float(auroc(Resamples(found))[0]), *_interval(found, groups))


def _interval(found: Predictions, groups: NDArray[np.int64]) -> Interval:
    random, count = np.random.default_rng(0), int(groups.max()) + 1
    areas: list[float] = []
    while len(areas) < _DRAWS:
        weights = np.bincount(random.integers(0, count, count), minlength=count)[groups].astype(np.float64)
        if len(np.unique(found.label[weights > 0])) == found.probability.shape[1]:
            areas.append(float(auroc(Resamples(found, weights[None]))[0]))
    return percentiles(np.array(areas))
