"""Properties of images that should not reveal their labels, and probes that predict labels from them."""

import numpy as np
from numpy.typing import NDArray

from pneumo.audit.properties import LoadedImages
from pneumo.common.terminal import track
from pneumo.data.splits import join_groups
from pneumo.metrics.probes import Probe, probe

Floats = NDArray[np.float64]
_FRAME = 8  # width of the outer frame in pixels of a thumbnail: a sixteenth of the image
_SEGMENTS = 8  # per side of the frame
_COARSE = 8  # side of the coarse thumbnail in pixels


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
            probes.append(probe(name, rows, images.labels, groups))
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
