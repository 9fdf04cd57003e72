"""Synthetic chest radiographs in the layout of Kermany et al. 2018."""

import io
import logging
import math
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import Progress

from pneumo.common.disk import temporary_folder
from pneumo.common.files import lock_of
from pneumo.data.anatomy import SCALE, SHAPE, Chest, Finding, Plane, draw_chest
from pneumo.data.folder_tree import SPLITS
from pneumo.data.index import DEFAULT_ROOT, is_image, locate, relative_path, walk
from pneumo.errors import ConfigError, DataError

_log = logging.getLogger(__name__)
_R = [[(0, 1), (0, 0), (0.5, 0), (0.7, 0.15), (0.7, 0.35), (0.5, 0.5), (0, 0.5)], [(0.3, 0.5), (0.7, 1)]]
_L = [[(0, 0), (0, 1), (0.6, 1)]]
MARKER = "phantoms.txt"  # file in the root folder of the tree
_VIEWS = (1, 1, 2, 1, 1)  # image numbers of four patients; the second patient has two images


class _Phantom(NamedTuple):
    path: str  # relative to the root folder
    split: int
    number: int  # within the split
    patient: int  # in the whole tree
    finding: Finding


def write_phantoms(root: Path, *, seed: int, train: int, val: int, test: int) -> None:
    """Write synthetic radiographs to `root/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`, unless they exist.

    60 % of each split show pneumonia, two thirds of it bacterial. Some patients have several images, all in the same
    split. The tree is written atomically; if several processes call this, only one draws it. Equal seeds give equal
    trees, but an existing tree with the right files is kept regardless of its seed.

    Args:
        root: Folder of the tree.
        seed: Seed of the random numbers.
        train: Number of training images, at least 2.
        val: Number of validation images, 0 or at least 2.
        test: Number of test images, at least 2.

    Raises:
        ConfigError: A split is too small for both classes.
        DataError: `root` contains other files, or cannot be written.
    """
    phantoms = _plan({"train": train, "val": val, "test": test})
    try:
        if _is_written(root, phantoms):
            return
        root.parent.mkdir(parents=True, exist_ok=True)
        with lock_of(root), temporary_folder(root.parent) as folder:
            if not _is_written(root, phantoms):
                tree = folder / root.name
                _draw_all(tree, phantoms, seed)
                text = f"Phantoms: synthetic radiographs drawn by pneumo (seed={seed}, {train}, {val}, {test}).\n"
                (tree / MARKER).write_text(text, encoding="ascii")
                tree.rename(root)
    except OSError as error:
        raise DataError(
            f"The phantoms cannot be written to {root} ({error.strerror or error}). Free disk space, fix the folder's "
            "permissions, or set paths.cache_dir=FOLDER to another folder."
        ) from error


def check_phantoms(root: Path, default: bool) -> None:
    """Warn if a data set consists of phantoms; raise a DataError if it is in the default folder of real data.

    `default` is true if data.root is not set.
    """
    if (folder := locate(root)) is None or not _is_phantom_tree(folder):
        return
    if default and root == DEFAULT_ROOT:
        raise DataError(
            f"{folder} contains phantoms, not radiographs of patients. Remove it to download the real data, or use "
            f"data=synthetic or data.root={folder} to train on phantoms."
        )
    _log.warning("data.root=%s contains phantoms: the results do not apply to radiographs of patients.", folder)


def draw_radiograph(patient: np.random.Generator, image: np.random.Generator, finding: Finding) -> NDArray[np.uint8]:
    """Draw one frontal chest radiograph, (height, width); the width is 160 to 224, and 1.0 to 1.4 times the height.

    Args:
        patient: Generator for the anatomy; the same seed gives the same patient.
        image: Generator for posture, position, exposure, noise and opacities. With the same seed, images with
            different findings differ only in the opacities.
        finding: "bacterial" draws one or two consolidations, "viral" a bilateral interstitial pattern.
    """
    return draw_radiograph_with_lungs(patient, image, finding)[0]


def draw_radiograph_with_lungs(
    patient: np.random.Generator, image: np.random.Generator, finding: Finding
) -> tuple[NDArray[np.uint8], Plane]:
    """Draw the image of `draw_radiograph` and the fraction of air along each ray, both (height, width)."""
    chest = draw_chest(patient, image, finding)
    _add_marker(chest.attenuation, image)
    projection = _project(chest, image)
    return _expose(projection.attenuation, image), projection.air


def _is_phantom_tree(root: Path) -> bool:
    """Detect phantoms by their marker file or, for earlier versions without it, by all file names."""
    if (root / MARKER).is_file():
        return True
    paths = {path.relative_to(root).as_posix() for path in root.glob("*/*/*") if path.suffix == ".jpeg"}
    counts = {split: sum(path.startswith(f"{split}/") for path in paths) for split in SPLITS}
    with suppress(ConfigError):  # impossible numbers of phantoms
        return paths == {phantom.path for phantom in _plan(counts)}
    return False


def _add_marker(body: Plane, image: np.random.Generator) -> None:
    """Add the lead letter that marks the patient's right or left side, in place."""
    sign, strokes = (1, _L) if image.uniform() < 0.2 else (-1, _R)
    column = round(SHAPE[1] / 2 + sign * image.uniform(0.8, 1.2) * SCALE) - 8
    row, size = image.integers(16, 110), image.uniform(24, 42)
    letter = Image.new("L", (64, 64))
    for stroke in strokes:
        points = [(12 + x * size, 12 + y * size) for x, y in stroke]
        ImageDraw.Draw(letter).line(points, fill=255, width=6, joint="curve")
    body[row : row + 16, column : column + 16] += np.asarray(letter.reduce(4), np.float32) / np.float32(100)


def _project(chest: Chest, image: np.random.Generator) -> Chest:
    """Resample a chest in body coordinates to an image of random size, position, scale and rotation."""
    longer, aspect = image.uniform(160, 224), image.uniform(1.0, 1.4)
    width, height = round(longer), round(longer / aspect)
    angle, zoom = image.normal(0, 0.025), 2 * SCALE / height / image.uniform(1.02, 1.16)
    x = SHAPE[1] / 2 + SCALE * image.normal(0, 0.025)
    y = SHAPE[0] / 2 + SCALE * image.normal(0, 0.025)
    c, s = zoom * math.cos(angle), zoom * math.sin(angle)
    matrix = (c, -s, x + (s * height - c * width) / 2, s, c, y - (s * width + c * height) / 2)
    return Chest(*(_transform(plane, (width, height), matrix) for plane in chest))


def _transform(plane: Plane, size: tuple[int, int], matrix: tuple[float, ...]) -> Plane:
    image = Image.fromarray(plane).transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def _expose(attenuation: Plane, image: np.random.Generator) -> NDArray[np.uint8]:
    """Convert attenuation to grey values, with random exposure, gradients, contrast and noise."""
    height, width = attenuation.shape
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    dose = attenuation * image.uniform(0.8, 1.15) * (1 + image.normal(0, 0.03) * x + image.normal(0, 0.04) * y)
    dose = np.maximum(dose + image.uniform(0.0, 0.06), 0)
    dose *= dose + image.uniform(0.2, 1.0)
    grey = 255 * image.uniform(0.9, 1.0) * (1 - np.exp(-image.uniform(0.9, 1.3) * dose))
    # Noise dominates the file size; its random level keeps opacities from being detectable by file size.
    grey += image.lognormal(0.8, 0.45) * image.standard_normal(attenuation.shape, dtype=np.float32)
    return np.asarray(np.clip(grey, 0, 255), np.uint8)


def _plan(counts: dict[str, int]) -> list[_Phantom]:
    """List all phantoms; the plan is not random, so even small splits have the intended class proportions."""
    phantoms: list[_Phantom] = []
    patient = 0
    for split, (name, count) in enumerate(counts.items()):
        if count < 2 and (name, count) != ("val", 0):
            raise ConfigError(
                f"data.{name}={count}: a split needs at least 2 images, one per class. Only data.val may be 0."
            )
        diseased = min(max(round(0.6 * count), 1), count - 1)
        first, views = len(phantoms), cycle(_VIEWS)
        for number in range(count):
            view = 1 if number in (0, count - diseased) else next(views)
            patient += view == 1
            finding: Finding = "none" if number < count - diseased else "viral" if patient % 3 == 0 else "bacterial"
            path = f"{name}/{_name(finding, patient, view, first + number + 1)}"
            phantoms.append(_Phantom(path, split, number, patient, finding))
    return phantoms


def _name(finding: Finding, patient: int, view: int, serial: int) -> str:
    if finding == "none":
        return f"NORMAL/{'IM' if patient % 2 else 'NORMAL2-IM'}-{patient:04d}-{view:04d}.jpeg"
    return f"PNEUMONIA/person{patient}_{'virus' if finding == 'viral' else 'bacteria'}_{serial}.jpeg"


def _is_written(root: Path, phantoms: list[_Phantom]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    images = {relative_path(entry.path, root) for entry in walk(root) if is_image(entry)}
    if images == {phantom.path for phantom in phantoms}:
        return True
    raise DataError(f"{root} exists but does not contain the requested phantoms. Remove it, or use another folder.")


def _draw_all(tree: Path, phantoms: list[_Phantom], seed: int) -> None:
    for folder in {(tree / phantom.path).parent for phantom in phantoms}:
        folder.mkdir(parents=True)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for phantom in progress.track(phantoms, description="Drawing phantoms"):
            stream = io.BytesIO()  # so that Python writes the file and disk errors have an errno
            Image.fromarray(_draw(phantom, seed)).save(stream, "JPEG", quality=95)
            (tree / phantom.path).write_bytes(stream.getvalue())


def _draw(phantom: _Phantom, seed: int) -> NDArray[np.uint8]:
    # Seeds per image allow each phantom to be drawn alone. The last 1 distinguishes patients from images.
    patient = np.random.default_rng([seed, phantom.split, phantom.patient, 1])
    image = np.random.default_rng([seed, phantom.split, phantom.number])
    return draw_radiograph(patient, image, phantom.finding)
