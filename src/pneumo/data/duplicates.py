"""Near-duplicate images: saved again, resized, cropped a little, brightened or mirrored.

All frontal chest films look alike, so that a correlation of thumbnails, or a perceptual hash, cannot separate a copy
from another child. Fine structure does: cosine transforms weighted by frequency make films of different patients
nearly orthogonal. A crop moves fine structure, so that pairs are first compared over coarse coefficients and up to the
tangents of shift and scale (Simard, LeCun and Denker 1993, "Efficient pattern recognition using a new transformation
distance"); the few that remain are laid over each other and compared in detail. docs/DATA.md has the fraction found.
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

Films: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]
SIDE = 64  # of the thumbnails that are compared, in pixels; larger images are found no better
VERSION = 2  # part of what is kept: change it whenever `group_duplicates` may give other groups
# Of 400 films cropped by up to 3 % the least reached 0.94; of 17 million pairs of different films, some 50 reach 0.9.
_COARSE_COSINE = 0.9
# Of 400 films cropped, resized, brightened and compressed anew the least reached 0.95, and 0.93 where a tenth less
# brightness and more contrast cut off the dark greys. Two exposures of one child a moment apart, between which the
# diaphragm has moved, reached 0.90; the next pair that is no copy, 0.75.
_FINE_COSINE = 0.92
_COARSE, _FINE = 16, 32  # coefficients along each axis
_POWER = 1.5  # of the frequency that weighs a coefficient: films have power spectra of about 1 / frequency**3
_BLOCK, _WIDTH = 128, 1024  # images compared with images at once: what comes of it fits into a processor's cache
_STEPS = 3  # of the search for the shift and scale between two films; more find no more


def group_duplicates(images: Films) -> NDArray[np.int64]:
    """Return for each image the index of the first one of its group of near-duplicates, (N,).

    A copy of a copy is in the group of both. On one core 5,856 images take three seconds and 20,000 twelve; time grows
    with the square of their number. Images are grey, (N, H, W), squeezed to `SIDE` pixels or more.
    """
    pairs = np.array([*_identical(images), *similar_pairs(images)], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(images), len(images)))
    _, groups = connected_components(graph, directed=False)
    first: NDArray[np.int64] = np.unique(groups, return_index=True)[1][groups].astype(np.int64)
    return first


def similar_pairs(images: Films) -> list[tuple[int, int]]:
    """List the pairs (i, j), i < j, of images (N, H, W) that show the same film, mirrored ones included, in order."""
    thumbnails = np.stack([shrink(image) for image in images]) if len(images) else np.empty((0, SIDE, SIDE), "u1")
    with threadpool_limits(1):  # many small products: threads would wait for one another, and for other processes
        return sorted({pair for pair, mirrored in _candidates(thumbnails) if _same_film(images, pair, mirrored)})


def shrink(image: Films) -> Films:
    """Reduce an image of any size to the square thumbnail that comparisons start from."""
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX))


def structure(thumbnails: Films | Floats, size: int = _FINE) -> Floats:
    """Compute the fine structure of thumbnails (N, 64, 64): rows (N, size**2 - 1) of length 1, or 0 for a single grey.

    The cosine of two rows is about 0 for films of different patients and about 1 for copies.
    """
    rows = _transform(thumbnails, size)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6), np.float32)


def _transform(thumbnails: Films | Floats, size: int) -> Floats:
    """Compute cosine transforms, weighted by frequency, without brightness, the constant term."""
    spectrum = dctn(thumbnails.astype(np.float32), axes=(1, 2), norm="ortho")[:, :size, :size]
    along = np.arange(size)
    weighted = spectrum * np.hypot(along[:, None], along[None, :]) ** _POWER
    return np.asarray(weighted.reshape(len(thumbnails), size**2)[:, 1:], np.float32)


def _identical(images: Films) -> Iterator[tuple[int, int]]:
    """Pair each image with the first that has the same pixels."""
    first: dict[bytes, int] = {}
    for number, image in enumerate(images):
        content = hashlib.sha256(image.tobytes()).digest()
        if (before := first.setdefault(content, number)) != number:
            yield before, number


def _tangents(thumbnails: Films | Floats) -> Floats:
    """Return each image's transform and its changes by shift and scale along either axis, shape (N, 255, 5)."""
    films = thumbnails.astype(np.float32)
    down, right = (np.asarray(change, np.float32) for change in np.gradient(films, axis=(1, 2)))
    along = (np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2) / (SIDE / 2)
    changes = (films, right, down, right * along, down * along[:, None])
    return np.stack([_transform(np.asarray(change), _COARSE) for change in changes], axis=2)


def _candidates(thumbnails: Films) -> Iterator[tuple[tuple[int, int], bool]]:
    """Find the pairs that may be copies, and whether mirrored, by their coarse structure up to shift and scale."""
    films = structure(thumbnails, _COARSE)
    odd = np.tile(np.arange(_COARSE) % 2 == 1, _COARSE)[1:]  # the coefficients whose sign mirroring turns round
    for start in range(0, len(films), _BLOCK):
        basis, _ = np.linalg.qr(_tangents(thumbnails[start : start + _BLOCK]))
        rows = np.ascontiguousarray(basis.transpose(2, 0, 1))
        for first in range(start, len(films), _WIDTH):
            columns = films[first : first + _WIDTH].T
            symmetric, turned = rows[..., ~odd] @ columns[~odd], rows[..., odd] @ columns[odd]
            for parts, mirrored in ((symmetric + turned, False), (symmetric - turned, True)):
                squared = np.square(parts, out=parts).sum(0)  # length of the projection on the tangents
                for i, j in np.argwhere(squared > _COARSE_COSINE**2):
                    if start + i < first + j:
                        yield (start + int(i), first + int(j)), mirrored


def _same_film(images: Films, pair: tuple[int, int], mirrored: bool) -> bool:
    """Lay each film over the other and compare them in detail: the larger part of a body covers the smaller one."""
    one, other = (np.asarray(images[number]) for number in pair)
    other = other[:, ::-1] if mirrored else other
    return max(_overlay_cosine(one, other), _overlay_cosine(other, one)) > _FINE_COSINE


def _overlay_cosine(fixed: Films, moving: Films) -> float:
    """Return the cosine of two films' fine structures, with `moving` shifted and scaled to fit `fixed` best."""
    target = shrink(fixed)[None]
    place, best = np.zeros(4), 0.0
    for _ in range(_STEPS + 1):
        laid = shrink(_move(moving, place))[None]
        best = max(best, float((structure(target) * structure(laid)).sum()))
        fit, *_ = np.linalg.lstsq(_tangents(laid)[0], _transform(target, _COARSE)[0], rcond=None)
        place = (place + fit[1:] / max(fit[0], 0.5)).clip(-6, 6)  # pixels of 64: what lies further off is no crop
    return best


def _move(film: Films, place: NDArray[np.float64]) -> Films:
    """Resample a film so that it is shifted by x, y and stretched by x, y at its edges, in pixels of a thumbnail."""
    x, y, wider, higher = place / SIDE
    height, width = film.shape
    zoom, offset = (1 + 2 * higher, 1 + 2 * wider), (height * (y - higher), width * (x - wider))
    return np.asarray(affine_transform(film, zoom, offset, order=1, mode="nearest"))
