"""Near duplicates: one picture stored twice, though compressed, resized or lit in another way."""

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 64  # height and width, in pixels, of the thumbnails that are compared
VERSION = 1  # part of what is kept: change it whenever `group_duplicates` may give other groups
# Correlation of two thumbnails of 32 x 32 pixels. Over the 5,856 Kermany radiographs the most that two different
# pictures have is 0.976. Of 200 of them the least that a copy has is 0.996 (JPEG quality 10), 0.999 (quality 30),
# 0.9998 (a third of the size, or twice), 0.997 (contrast + 20 %, gamma 1.2), 0.974 (turned by a degree). A copy without
# 3 % of its width and height has 0.988 in the median, so about half of such are found. The usual hash, 64 signs of
# cosine coefficients, will not do: within the usual 6 bits of 21 % of the radiographs there is another one.
ALIKE = 0.985
_CELLS = 1 << 24  # correlations held at once, four bytes each


def group_duplicates(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Number the groups of near duplicates: pictures that are linked by pairs which are alike are in one group.

    Mirrored and turned copies are other pictures. 5,856 images take a second, 100,000 some minutes.

    Args:
        images: Grey thumbnails of `SIDE` pixels, (N, SIDE, SIDE), as `pneumo.data.images.decode` makes them.

    Returns:
        For each image the position of the first one of its group, (N,); one that has no like has a group of its own.
    """
    count = len(images)
    looks = _standardise(images)
    # Flat pictures have no correlation.
    _, first, same = np.unique(images.reshape(count, SIDE**2), axis=0, return_index=True, return_inverse=True)
    links = [np.stack([np.arange(count), first[same.ravel()]])]
    block = max(1, _CELLS // max(count, 1))
    for start in range(0, count, block):
        alike = looks[start : start + block] @ looks[start:].T > ALIKE
        links.append(np.argwhere(alike).T + start)
    row, column = np.concatenate(links, axis=1)
    _, group = connected_components(coo_array((np.ones(len(row)), (row, column)), shape=(count, count)), directed=False)
    numbers: npt.NDArray[np.int64] = np.unique(group, return_index=True)[1][group].astype(np.int64)
    return numbers


def _standardise(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Average cells of 2 x 2 pixels, and give each image mean 0 and length 1; brightness and contrast do not matter."""
    half = images.reshape(len(images), SIDE // 2, 2, SIDE // 2, 2).mean((2, 4), dtype=np.float32)
    looks = half.reshape(len(images), (SIDE // 2) ** 2)
    looks = looks - looks.mean(1, keepdims=True)
    return np.asarray(looks / np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-3), np.float32)
