"""Leakage: near-duplicates of training images among the evaluated images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pneumo.common.hardware import count_cores
from pneumo.common.input_format import InputFormat
from pneumo.data.duplicates import SIDE, similar_pairs
from pneumo.data.index import (
    Radiograph,
    file_path,
    is_image,
    locate,
    readable_entries,
    relative_path,
    walk,
)
from pneumo.errors import ConfigError, DataError
from pneumo.inference.backend import Images
from pneumo.inference.evaluate.cohort import Cohort
from pneumo.inference.evaluate.performance import defined_estimates
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.intervals import Estimate
from pneumo.runs.recorded_config import read_config, resolve_references
from pneumo.runs.recorded_images import find_recorded_images
from pneumo.runs.results import read_finished
from pneumo.runs.split_files import read_splits

_CACHE = Path("outputs/cache")  # as for training


@dataclass(frozen=True)
class Leakage:
    """The evaluated images that are near-duplicates of training images."""

    training_images: int
    pairs: tuple[tuple[str, str], ...]  # evaluated image and training image
    images: int  # number of distinct evaluated images in the pairs
    metrics_without: dict[str, Estimate] | None  # metrics without these images; None if there are none or all are


@dataclass(frozen=True)
class TrainingImages:
    """Files that a network was trained or selected on."""

    root: Path
    paths: tuple[str, ...]  # escaped text, relative to the root


def run_images(run: Path) -> TrainingImages:
    """Find the training and validation images of a finished run.

    Raises:
        ConfigError: The folder contains no finished run, or one of its files is damaged.
        DataError: The images are not where the run read them.
    """
    results = read_finished(run)
    settings = resolve_references(read_config(run))
    paths = [line["path"] for line in read_splits(run) if line["split"] != "test"]
    return _relative(find_recorded_images(run, settings, results, paths))


def folder_images(root: Path) -> TrainingImages:
    """List the images in a folder; of a data set with train/ and test/, only those in train/ and val/.

    Raises:
        ConfigError: The folder contains no images.
    """
    tree = locate(root)
    folders = [root] if tree is None else [tree / "train", tree / "val"]
    with readable_entries():
        files = sorted(Path(entry.path) for folder in folders for entry in walk(folder) if is_image(entry))
    if not files:
        raise ConfigError(
            f"--training-data {root} contains no images. It must be the folder of the data that the network was "
            "trained on, such as data/chest_xray. Use another folder."
        )
    return _relative(files)


def find_leakage(cohort: Cohort, training: TrainingImages, cache: Path = _CACHE) -> Leakage:
    """Search a cohort with thumbnails for near-duplicates of training images.

    Args:
        cohort: The evaluated images.
        training: The training images.
        cache: Folder of the cache in which thumbnails of the training images are stored.

    Raises:
        DataError: A training image cannot be read.
    """
    assert cohort.thumbnails is not None
    count = len(cohort.images)
    thumbnails = np.concatenate((cohort.thumbnails, _decode(training, cache)))
    pairs = [(i, j - count) for i, j in similar_pairs(thumbnails) if i < count <= j]
    duplicates = {i for i, _ in pairs}
    others = np.array([index for index in range(count) if index not in duplicates], np.int64)
    return Leakage(
        training_images=len(training.paths),
        pairs=tuple((cohort.images[i].name, training.paths[j]) for i, j in pairs),
        images=len(duplicates),
        metrics_without=defined_estimates(cohort.predictions.take(others), METRICS)
        if 0 < len(others) < count
        else None,
    )


def _relative(files: Sequence[Path]) -> TrainingImages:
    root = Path(os.path.commonpath([file.parent.absolute() for file in files]))
    return TrainingImages(root, tuple(relative_path(str(file.absolute()), root) for file in files))


def _decode(training: TrainingImages, cache: Path) -> Images:
    """Decode thumbnails of the training images, (N, SIDE, SIDE), and store them in the cache."""
    from pneumo.data.image_cache import RadiographDataset, content_hash, decode_all  # imports torch

    radiographs = []
    for path in training.paths:
        file = file_path(training.root, path)
        try:
            status = file.stat()
        except OSError as error:
            raise DataError(f"{file} cannot be read ({error.strerror}). Restore the training image.") from error
        radiographs.append(Radiograph(path, 0, "none", "", "train", status.st_size, status.st_mtime_ns))
    dataset = RadiographDataset(training.root, radiographs, InputFormat(SIDE))
    content = content_hash(training.root, radiographs, cache)
    return np.asarray(decode_all(dataset, count_cores(), content, cache)[:, 0])
