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
from pneumo.data.anatomy import SCALE, SHAPE, Finding, Plane, draw_body
from pneumo.data.folder_tree import SPLITS
from pneumo.data.index import DEFAULT_ROOT, is_image, locate, relative_path, walk
from pneumo.errors import ConfigError, DataError

_log = logging.getLogger(__name__)
_R = [[(0, 1), (0, 0), (0.5, 0), (0.7, 0.15), (0.7, 0.35), (0.5, 0.5), (0, 0.5)], [(0.3, 0.5), (0.7, 1)]]
_L = [[(0, 0), (0, 1), (0.6, 1)]]
MARKER = "phantoms.txt"  # lies in the tree's folder
_VIEWS = (1, 1, 2, 1, 1)  # every fourth patient has a second film


class _Film(NamedTuple):
    path: str  # relative to the tree
    split: int
    number: int  # within its split
    patient: int  # in the whole tree
    finding: Finding


def write_phantoms(root: Path, *, seed: int, train: int, val: int, test: int) -> None:
    """Write a tree of synthetic radiographs, `{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`, unless it is there already.

    60 % of each split show pneumonia, two thirds of it bacterial; some patients have several images, none of them in
    two splits. The tree appears whole or not at all, and of several processes only one draws it.

    `train`, `val` and `test` are numbers of images, at least 2; `val` may be 0. Equal seeds give equal trees; a tree
    with the right files is left as it is, regardless of its seed.

    Raises:
        ConfigError: A split is too small to hold both classes.
        DataError: `root` holds something else, or cannot be written.
    """
    films = _plan({"train": train, "val": val, "test": test})
    try:
        if _is_written(root, films):
            return
        root.parent.mkdir(parents=True, exist_ok=True)
        with lock_of(root), temporary_folder(root.parent) as folder:
            if not _is_written(root, films):
                tree = folder / root.name
                _draw_all(tree, films, seed)
                text = f"Phantoms: radiographs of nobody, drawn by pneumo (seed={seed}, {train}, {val}, {test}).\n"
                (tree / MARKER).write_text(text, encoding="ascii")
                tree.rename(root)
    except OSError as error:
        raise DataError(
            f"The phantoms cannot be drawn into {root} ({error.strerror or error}): make room on its disk, mend its "
            "permissions, or put caches elsewhere with paths.cache_dir=FOLDER."
        ) from error


def check_phantoms(root: Path, default: bool) -> None:
    """Warn of a data set of phantoms; raise a DataError if it lies where the real data are looked for by default."""
    if (folder := locate(root)) is None or not _holds_phantoms(folder):
        return
    if default and root == DEFAULT_ROOT:
        raise DataError(
            f"{folder} holds phantoms, not radiographs of patients: remove it, and the data are downloaded in its "
            f"place; or, to train on phantoms, take data=synthetic or data.root={folder}."
        )
    _log.warning("data.root=%s holds phantoms, so no figure says anything about radiographs of patients.", folder)


def draw_radiograph(patient: np.random.Generator, image: np.random.Generator, finding: Finding) -> NDArray[np.uint8]:
    """Draw one frontal chest radiograph, (height, width); the width is 160 to 224, and 1.0 to 1.4 times the height.

    Args:
        patient: Generator of the anatomy; equally seeded ones give the same patient.
        image: Generator of posture, position, exposure, grain and opacities. Equally seeded ones give images that
            differ in nothing but the opacities, regardless of the finding.
        finding: "bacterial" draws one or two consolidations, "viral" a bilateral interstitial pattern.
    """
    body = draw_body(patient, image, finding)
    _add_marker(body, image)
    return _expose(_project(body, image), image)


def _holds_phantoms(root: Path) -> bool:
    """Return whether a folder holds phantoms: by its marker or, as earlier versions wrote none, by all file names."""
    if (root / MARKER).is_file():
        return True
    found = {path.relative_to(root).as_posix() for path in root.glob("*/*/*") if path.suffix == ".jpeg"}
    counts = {split: sum(path.startswith(f"{split}/") for path in found) for split in SPLITS}
    with suppress(ConfigError):  # no counts of phantoms
        return found == {film.path for film in _plan(counts)}
    return False


def _add_marker(body: Plane, image: np.random.Generator) -> None:
    """Add, in place, the lead letter that marks the patient's right or left."""
    sign, strokes = (1, _L) if image.uniform() < 0.2 else (-1, _R)
    column = round(SHAPE[1] / 2 + sign * image.uniform(0.8, 1.2) * SCALE) - 8
    row, size = image.integers(16, 110), image.uniform(24, 42)
    letter = Image.new("L", (64, 64))
    for stroke in strokes:
        points = [(12 + x * size, 12 + y * size) for x, y in stroke]
        ImageDraw.Draw(letter).line(points, fill=255, width=6, joint="curve")
    body[row : row + 16, column : column + 16] += np.asarray(letter.reduce(4), np.float32) / np.float32(100)


def _project(body: Plane, image: np.random.Generator) -> Plane:
    """Resample the body's frame to a film of random size, position, scale and rotation."""
    longer, aspect = image.uniform(160, 224), image.uniform(1.0, 1.4)
    width, height = round(longer), round(longer / aspect)
    angle, zoom = image.normal(0, 0.025), 2 * SCALE / height / image.uniform(1.02, 1.16)
    x = SHAPE[1] / 2 + SCALE * image.normal(0, 0.025)
    y = SHAPE[0] / 2 + SCALE * image.normal(0, 0.025)
    c, s = zoom * math.cos(angle), zoom * math.sin(angle)
    matrix = (c, -s, x + (s * height - c * width) / 2, s, c, y - (s * width + c * height) / 2)
    film = Image.fromarray(body).transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(film, np.float32)


def _expose(film: Plane, image: np.random.Generator) -> NDArray[np.uint8]:
    """Turn attenuation into grey values: exposure, gradient, contrast, grain."""
    height, width = film.shape
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    dose = film * image.uniform(0.8, 1.15) * (1 + image.normal(0, 0.03) * x + image.normal(0, 0.04) * y)
    dose = np.maximum(dose + image.uniform(0.0, 0.06), 0)
    dose *= dose + image.uniform(0.2, 1.0)
    grey = 255 * image.uniform(0.9, 1.0) * (1 - np.exp(-image.uniform(0.9, 1.3) * dose))
    # Grain makes most of a file's size, and differs enough between films to hide what an opacity adds to it.
    grey += image.lognormal(0.8, 0.45) * image.standard_normal(film.shape, dtype=np.float32)
    return np.asarray(np.clip(grey, 0, 255), np.uint8)


def _plan(counts: dict[str, int]) -> list[_Film]:
    """Name all films; nothing here is random, so that even a small split has its share of either class."""
    films: list[_Film] = []
    patient = 0
    for split, (name, count) in enumerate(counts.items()):
        if count < 2 and (name, count) != ("val", 0):
            raise ConfigError(f"{name}={count}: a split needs at least 2 images, one of each class; only val may be 0.")
        ill = min(max(round(0.6 * count), 1), count - 1)
        first, views = len(films), cycle(_VIEWS)
        for number in range(count):
            view = 1 if number in (0, count - ill) else next(views)
            patient += view == 1
            finding: Finding = "none" if number < count - ill else "viral" if patient % 3 == 0 else "bacterial"
            path = f"{name}/{_name(finding, patient, view, first + number + 1)}"
            films.append(_Film(path, split, number, patient, finding))
    return films


def _name(finding: Finding, patient: int, view: int, serial: int) -> str:
    if finding == "none":
        return f"NORMAL/{'IM' if patient % 2 else 'NORMAL2-IM'}-{patient:04d}-{view:04d}.jpeg"
    return f"PNEUMONIA/person{patient}_{'virus' if finding == 'viral' else 'bacteria'}_{serial}.jpeg"


def _is_written(root: Path, films: list[_Film]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    images = {relative_path(entry.path, root) for entry in walk(root) if is_image(entry)}
    if images == {film.path for film in films}:
        return True
    raise DataError(f"{root} is there, but is not the tree of phantoms asked for: remove it, or name another folder.")


def _draw_all(tree: Path, films: list[_Film], seed: int) -> None:
    for folder in {(tree / film.path).parent for film in films}:
        folder.mkdir(parents=True)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for film in progress.track(films, description="Drawing phantoms"):
            stream = io.BytesIO()  # errors of a disk come from Python then, and have a number
            Image.fromarray(_draw(film, seed)).save(stream, "JPEG", quality=95)
            (tree / film.path).write_bytes(stream.getvalue())


def _draw(film: _Film, seed: int) -> NDArray[np.uint8]:
    # Numbers, not one stream for all: any film can be drawn alone. The last 1 sets patients apart from images.
    patient = np.random.default_rng([seed, film.split, film.patient, 1])
    image = np.random.default_rng([seed, film.split, film.number])
    return draw_radiograph(patient, image, film.finding)
