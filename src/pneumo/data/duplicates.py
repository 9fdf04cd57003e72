"""Detection of near-duplicate images: recompressed, resized, slightly cropped, brightened or mirrored copies.

Frontal chest radiographs are so similar that correlations of thumbnails and perceptual hashes cannot distinguish copies
from other patients. Fine structure can: frequency-weighted cosine transforms of different patients are nearly
orthogonal.

Cropping moves fine structure. Pairs are therefore first compared by coarse coefficients, which tangents make invariant
to small shifts and changes of scale. The few remaining pairs are aligned and compared in detail. docs/AUDIT.md lists
the detection rates.

Source of the tangents: Simard, LeCun and Denker 1993, "Efficient pattern recognition using a new transformation
distance".
"""

import hashlib
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import affine_transform
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

Images: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]
SIDE = 64  # side of the compared thumbnails in pixels; larger ones do not improve detection
VERSION = 2  # part of the cache key: increase it when `group_duplicates` may return other groups
# 400 copies cropped by up to 3 % reached at least 0.94; of 17 million pairs of different images, about 50 reach 0.9.
_COARSE_COSINE = 0.9
# 400 cropped, resized, brightened and recompressed copies reached at least 0.95, or 0.93 where lower brightness and
# higher contrast clipped dark grey values. Two exposures of one child in quick succession, with a moved diaphragm,
# reached 0.90. The next pair that is not a copy reached 0.75.
_FINE_COSINE = 0.92
_COARSE, _FINE = 16, 32  # coefficients along each axis
_POWER = 1.5  # exponent of the frequency weight; radiographs have power spectra of about 1 / frequency**3
_BLOCK, _WIDTH = 128, 1024  # rows and columns of a comparison block that fits into the processor cache
_STEPS = 3  # iterations of the alignment; more do not detect more copies


def group_duplicates(images: Images) -> NDArray[np.int64]:
    """Return for each image the index of the first image in its group of near-duplicates, (N,).

    Groups are transitive: a copy of a copy belongs to the same group. The time grows with the square of N; on one core,
    20,000 images take twelve seconds.

    Args:
        images: Grayscale images resized to `SIDE` pixels or more, (N, H, W).
    """
    pairs = np.array([*_identical(images), *similar_pairs(images)], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(images), len(images)))
    _, groups = connected_components(graph, directed=False)
    first: NDArray[np.int64] = np.unique(groups, return_index=True)[1][groups].astype(np.int64)
    return first


def similar_pairs(images: Images) -> list[tuple[int, int]]:
    """List the sorted pairs (i, j), i < j, of near-duplicates among images (N, H, W), including mirrored ones."""
    thumbnails = np.stack([shrink(image) for image in images]) if len(images) else np.empty((0, SIDE, SIDE), "u1")
    with threadpool_limits(1):  # threads would slow down many small matrix products
        return sorted({pair for pair, mirrored in _candidates(thumbnails) if _are_copies(images, pair, mirrored)})


def shrink(image: Images) -> Images:
    """Resize an image to a square thumbnail of `SIDE` pixels."""
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX))


def structure(thumbnails: Images | Floats, size: int = _FINE) -> Floats:
    """Compute the fine structure of thumbnails (N, 64, 64) as rows of unit length, (N, size**2 - 1).

    Rows of constant images are 0. The cosine of two rows is about 0 for different patients and about 1 for copies.
    """
    rows = _transform(thumbnails, size)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6), np.float32)


def _transform(thumbnails: Images | Floats, size: int) -> Floats:
    """Compute frequency-weighted cosine transforms without the constant term, which is the brightness."""
    spectrum = dctn(thumbnails.astype(np.float32), axes=(1, 2), norm="ortho")[:, :size, :size]
    along = np.arange(size)
    weighted = spectrum * np.hypot(along[:, None], along[None, :]) ** _POWER
    return np.asarray(weighted.reshape(len(thumbnails), size**2)[:, 1:], np.float32)


def _identical(images: Images) -> Iterator[tuple[int, int]]:
    """Yield a pair for each image whose pixels are identical to those of an earlier image."""
    first: dict[bytes, int] = {}
    for i, image in enumerate(images):
        content = hashlib.sha256(image.tobytes()).digest()
        if (earlier := first.setdefault(content, i)) != i:
            yield earlier, i


def _tangents(thumbnails: Images | Floats) -> Floats:
    """Compute each transform and its derivatives with respect to shift and scale along both axes, (N, 255, 5)."""
    images = thumbnails.astype(np.float32)
    down, right = (np.asarray(gradient, np.float32) for gradient in np.gradient(images, axis=(1, 2)))
    along = (np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2) / (SIDE / 2)
    terms = (images, right, down, right * along, down * along[:, None])
    return np.stack([_transform(np.asarray(term), _COARSE) for term in terms], axis=2)


def _candidates(thumbnails: Images) -> Iterator[tuple[tuple[int, int], bool]]:
    """Yield the pairs with similar coarse structure up to shift and scale, and whether one is mirrored."""
    rows = structure(thumbnails, _COARSE)
    odd = np.tile(np.arange(_COARSE) % 2 == 1, _COARSE)[1:]  # coefficients whose sign changes by mirroring
    for start in range(0, len(rows), _BLOCK):
        basis, _ = np.linalg.qr(_tangents(thumbnails[start : start + _BLOCK]))
        tangents = np.ascontiguousarray(basis.transpose(2, 0, 1))
        for first in range(start, len(rows), _WIDTH):
            columns = rows[first : first + _WIDTH].T
            even_part, odd_part = tangents[..., ~odd] @ columns[~odd], tangents[..., odd] @ columns[odd]
            for projection, mirrored in ((even_part + odd_part, False), (even_part - odd_part, True)):
                squared = np.square(projection, out=projection).sum(0)  # squared length of the projection
                for i, j in np.argwhere(squared > _COARSE_COSINE**2):
                    if start + i < first + j:
                        yield (start + int(i), first + int(j)), mirrored


def _are_copies(images: Images, pair: tuple[int, int], mirrored: bool) -> bool:
    """Align each image with the other and compare them in detail; only the less cropped one covers the other."""
    one, other = (np.asarray(images[i]) for i in pair)
    other = other[:, ::-1] if mirrored else other
    return max(_overlay_cosine(one, other), _overlay_cosine(other, one)) > _FINE_COSINE


def _overlay_cosine(fixed: Images, moving: Images) -> float:
    """Compute the cosine of two fine structures after shifting and scaling `moving` to fit `fixed`."""
    target = shrink(fixed)[None]
    shift, best = np.zeros(4), 0.0
    for _ in range(_STEPS + 1):
        aligned = shrink(_align(moving, shift))[None]
        best = max(best, float((structure(target) * structure(aligned)).sum()))
        fit, *_ = np.linalg.lstsq(_tangents(aligned)[0], _transform(target, _COARSE)[0], rcond=None)
        shift = (shift + fit[1:] / max(fit[0], 0.5)).clip(-6, 6)  # thumbnail pixels; larger shifts are not crops
    return best


def _align(image: Images, shift: NDArray[np.float64]) -> Images:
    """Resample an image with a shift (x, y) and a stretch (x, y) of its edges, in thumbnail pixels."""
    x, y, stretch_x, stretch_y = shift / SIDE
    height, width = image.shape
    zoom, offset = (1 + 2 * stretch_y, 1 + 2 * stretch_x), (height * (y - stretch_y), width * (x - stretch_x))
    return np.asarray(affine_transform(image, zoom, offset, order=1, mode="nearest"))
