"""Cohort: the predictions of a classifier for a set of labelled images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from pneumo.common.terminal import track
from pneumo.common.text import escape_line
from pneumo.data.dicom_patients import header_patients
from pneumo.data.image_notes import note_kind
from pneumo.data.labelled_images import LabelledImage, LabelledSet
from pneumo.errors import DataError
from pneumo.inference.backend import Images
from pneumo.inference.batch_predictor import BatchPredictor
from pneumo.inference.prediction import Prediction
from pneumo.metrics.intervals import Array
from pneumo.metrics.predictions import Labels, Predictions

_MAX_LISTED = 5  # unknown labels that an error names
_TINY = float(np.finfo(np.float32).smallest_subnormal)


@dataclass(frozen=True)
class FileProperties:
    """Properties of N image files that should not reveal a diagnosis."""

    sizes: npt.NDArray[np.int64]  # width and height in pixels, and bytes of the file, (N, 3)
    storage: tuple[str, ...]  # format and mode of each file, such as JPEG L


@dataclass(frozen=True)
class Cohort:
    """Predictions for the readable images of a set, all in the same order."""

    name: str
    images: tuple[LabelledImage, ...]  # N readable images
    extra_columns: tuple[str, ...]
    predictions: Predictions  # patients are from the table or file name, else from DICOM headers, else one per image
    uncertain: npt.NDArray[np.bool_] | None  # whether predictions are near the threshold, (N,); None: not calibrated
    ood_score: npt.NDArray[np.float64] | None  # above 1 an image is out of distribution, (N,); None: no detector
    unreadable: tuple[tuple[str, str], ...]  # name and reason
    notes: Mapping[str, int]  # images by kind of note
    skipped: tuple[tuple[str, str], ...]  # name and reason of entries of the set that are not used
    remarks: tuple[tuple[str, ...], ...]  # notes on each image
    header_patients: tuple[str, ...]  # pseudonym from the DICOM header of images without a given patient, else ""
    properties: FileProperties
    thumbnails: Images | None  # (N, 64, 64); None unless requested

    def patient(self, index: int) -> str:
        """Return the given patient of an image, else the pseudonym from its DICOM header, else an empty text."""
        return self.images[index].patient or self.header_patients[index]

    @property
    def unknown_patients(self) -> int:
        """Number of images without a known patient; each counts as one patient."""
        return sum(not self.patient(index) for index in range(len(self.images)))

    def column(self, name: str) -> list[str]:
        """Return the values of one of the extra columns, (N,)."""
        index = self.extra_columns.index(name)
        return [image.extra[index] for image in self.images]


def predict_cohort(
    model: BatchPredictor, labelled: LabelledSet, progress: str = "Predicting", keep_thumbnails: bool = False
) -> Cohort:
    """Predict a labelled set image by image; only numbers and, on request, thumbnails are kept.

    Args:
        model: The predictor.
        labelled: The set; its labels must be names of the model's classes.
        progress: Title of the progress bar.
        keep_thumbnails: Whether to keep thumbnails of 4 kB per image for the search for near-duplicates.

    Raises:
        DataError: The set is empty, a label is not a class of the model, or no image can be read.
    """
    label = match_labels(labelled, model.rules.classes)
    predictions: list[Prediction] = []
    thumbnails: list[Images] = []
    sizes: list[tuple[int, int]] = []
    storage: list[str] = []
    with track(progress, len(labelled.images)) as update:
        files = [image.file for image in labelled.images]
        for batch in model.predict_batches(files, keep_thumbnails=keep_thumbnails):
            predictions += batch.predictions
            readable = [image for image in batch.images if image.error is None]
            sizes += [image.size for image in readable]
            storage += [image.storage for image in readable]
            thumbnails += [image.thumbnail for image in readable if image.thumbnail is not None]
            update(len(predictions))
    unreadable = _list_unreadable(labelled, predictions)
    kept = [index for index, prediction in enumerate(predictions) if prediction.error is None]
    images, read = tuple(labelled.images[index] for index in kept), [predictions[index] for index in kept]
    pseudonyms = _header_patients(images)
    byte_counts = [image.file.stat().st_size for image in images]
    return Cohort(
        name=labelled.name,
        images=images,
        extra_columns=labelled.extra_columns,
        predictions=_to_predictions(read, label[kept], model, images, pseudonyms),
        uncertain=None if model.rules.margin is None else np.array([bool(each.uncertain) for each in read]),
        ood_score=np.array([each.ood_score for each in read], np.float64) if model.rules.has_ood_detector else None,
        unreadable=unreadable,
        notes=count_notes(each.notes for each in read),
        skipped=labelled.skipped,
        remarks=tuple(each.notes for each in read),
        header_patients=pseudonyms,
        properties=FileProperties(np.column_stack((np.array(sizes, np.int64), byte_counts)), tuple(storage)),
        thumbnails=np.stack(thumbnails) if keep_thumbnails else None,
    )


def match_labels(labelled: LabelledSet, classes: Sequence[str]) -> Labels:
    """Return the class index of each label, (N,); case is ignored where this is unambiguous.

    Raises:
        DataError: The set is empty, or a label is not the name of a class.
    """
    folded = {name.casefold(): index for index, name in reversed(list(enumerate(classes)))}
    known = {**folded, **{name: index for index, name in enumerate(classes)}}
    index = [known.get(image.label, folded.get(image.label.casefold())) for image in labelled.images]
    if not index:
        raise DataError(f"{labelled.name} has no labelled images. An evaluation needs at least one. Use other data.")
    unknown = Counter(image.label for image, k in zip(labelled.images, index, strict=True) if k is None)
    if unknown:
        listed = [
            f"{escape_line(name[:40]) or '(none)'} ({count:,})" for name, count in unknown.most_common(_MAX_LISTED)
        ]
        more = f" and {len(unknown) - _MAX_LISTED:,} more" if len(unknown) > _MAX_LISTED else ""
        example = f"{escape_line(next(iter(unknown))[:40])}={classes[0]}"
        raise DataError(
            f"{labelled.name} has labels that are not classes of the network: {', '.join(listed)}{more}. Its classes "
            f"are {', '.join(classes)}. Rename labels, for example with --map {example!r}, or remove these images."
        )
    return np.array(index, np.int64)


def _list_unreadable(labelled: LabelledSet, predictions: Sequence[Prediction]) -> tuple[tuple[str, str], ...]:
    """Return name and reason of each unreadable image; raise a DataError if no image can be read."""
    unreadable = tuple(
        (image.name, prediction.error)
        for image, prediction in zip(labelled.images, predictions, strict=True)
        if prediction.error is not None
    )
    if len(unreadable) == len(predictions):
        name, reason = unreadable[0]
        raise DataError(
            f"None of the {len(unreadable):,} images of {labelled.name} can be read; {name} {reason} Replace them with "
            "intact images."
        )
    return unreadable


def count_notes(notes: Iterable[Sequence[str]]) -> dict[str, int]:
    """Count the images by kind of note, the most frequent first."""
    return dict(Counter(kind for each in notes for kind in dict.fromkeys(map(note_kind, each))).most_common())


def _header_patients(images: Sequence[LabelledImage]) -> tuple[str, ...]:
    """Return a pseudonym from the DICOM header for each image without a given patient, and "" for all others."""
    missing = [index for index, image in enumerate(images) if not image.patient]
    names = [""] * len(images)
    for index, name in zip(missing, header_patients([images[index].file for index in missing]), strict=True):
        names[index] = name
    return tuple(names)


def _to_predictions(
    read: Sequence[Prediction],
    label: Labels,
    model: BatchPredictor,
    images: Sequence[LabelledImage],
    pseudonyms: Sequence[str],
) -> Predictions:
    classes = model.rules.classes
    paths = tuple(image.name for image in images)
    patients = tuple(
        image.patient or pseudonym or f"image {image.name}" for image, pseudonym in zip(images, pseudonyms, strict=True)
    )
    predicted = np.array([classes.index(str(each.predicted_class)) for each in read], np.int64)
    if len(classes) == 2:
        probability = np.array([each.positive_probability for each in read])
        margin = np.array([each.logit_margin for each in read])
        names = classes[0], classes[1]
        return Predictions.binary(probability, label == 1, predicted == 1, names, paths, margin, patients)
    probabilities = np.array([list(each.probability.values()) for each in read])
    return Predictions(probabilities, label, predicted, classes, _odds(probabilities), paths, patients)


def _odds(probabilities: Array) -> Array:
    """Compute the log odds of each class from probabilities, (N, C); those of the other classes are summed."""
    log = np.log(np.maximum(probabilities, _TINY))
    others = [logsumexp(np.delete(log, index, axis=1), axis=1) for index in range(log.shape[1])]
    return np.asarray(log - np.stack(others, axis=1))
