"""Consistency of all readers of radiographs: all reject the same files for the same reasons."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.damaged_images import encode_image
from helpers.data_modules import open_data
from helpers.decompression_bombs import DECLARED, DEEP, GREY, PIECES
from helpers.dicom_files import dicom
from PIL import Image

from pneumo.audit.properties import read_images
from pneumo.common.input_format import InputFormat
from pneumo.data.image_tree import read_tree
from pneumo.data.radiograph import decode, examine_radiograph, read_radiograph
from pneumo.errors import DataError
from pneumo.inference.backend import Rules
from pneumo.inference.inputs import read_input

RULES = Rules("timm/x", ("NORMAL", "PNEUMONIA"), 32, 1.0, 0.5, None, False)
FLAT = np.full((96, 120), 9, np.uint8)
REJECTED = {
    "one pixel": encode_image(GREY[:1, :1], "PNG"),
    "line": encode_image(np.resize(GREY, (1, 5000)), "PNG"),
    "small": encode_image(GREY[:31], "PNG"),
    "frames": encode_image(GREY, "GIF", save_all=True, append_images=[Image.fromarray(GREY[::-1])]),
    "pages": encode_image(GREY, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)]),
    "frames of dicom": dicom(GREY, NumberOfFrames=2, Rows=48),
    "one grey": encode_image(FLAT, "PNG"),
    "one grey of 16 bits": encode_image(FLAT * np.uint16(257), "PNG"),
    "one grey in dicom": dicom(FLAT),
    "floating": encode_image(GREY.astype(np.float32), "TIFF"),
    "truncated": encode_image(GREY, "JPEG")[:-99],
    "avif": encode_image(GREY, "AVIF"),
    "drawing": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n",
    "memory": DECLARED["png with a palette"],
    "memory of dicom": DECLARED["dicom in rle"],
    "pieces": PIECES["tiff directories"][0],
    "pieces of dicom": PIECES["windows"][0],
}
READ = {"jpeg": encode_image(GREY, "JPEG"), "png": encode_image(DEEP, "PNG"), "dicom": dicom(DEEP)}
READ["precincts"] = encode_image(GREY, "JPEG2000", precinct_size=(256, 256))  # lower resolutions have smaller precincts


def attempt(read: Callable[..., object], *arguments: object) -> str:
    """Return the reason why the arguments cannot be read; an empty string if they can."""
    try:
        read(*arguments)
    except DataError as error:
        return str(error)
    return ""


def reason(read: Callable[..., object], *arguments: object) -> str:
    text = attempt(read, *arguments)
    assert text
    return text


@pytest.fixture(scope="module")
def root(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with each file of the tables added as a training image."""
    root = shutil.copytree(phantoms, tmp_path_factory.mktemp("readers") / "copy")
    for name, content in {**REJECTED, **READ}.items():
        (root / "train" / "NORMAL" / f"{name}.png").write_bytes(content)
    return root


@pytest.mark.parametrize("name", REJECTED)
def test_all_readers_reject_the_same_files_for_the_same_reason(name: str, root: Path) -> None:
    path = root / "train" / "NORMAL" / f"{name}.png"
    expected = reason(read_radiograph, path)
    assert reason(read_radiograph, path.read_bytes()) == expected
    assert reason(examine_radiograph, path) == expected
    assert read_input(path, RULES, keep_preview=False).error == expected  # predict, evaluate, explain
    assert read_input(path.read_bytes(), RULES, keep_preview=True).error == expected  # serve
    assert reason(decode, path, InputFormat(32)).startswith(f"{path} {expected} Training stops")


def test_training_stops_at_each_rejected_file(root: Path) -> None:
    data = open_data(root)
    errors = {image.path: attempt(list, data.image_blocks([index], 1)) for index, image in enumerate(data.radiographs)}
    rejected = {path: error for path, error in errors.items() if error}
    assert {Path(path).stem for path in rejected} == REJECTED.keys()
    assert all(error.startswith(str(root / path)) for path, error in rejected.items())


def test_the_audit_lists_each_rejected_file_with_the_reason(root: Path) -> None:
    listed = {Path(path).stem: text for path, text in read_images(read_tree(root)).unreadable}
    assert listed == {name: reason(read_radiograph, content) for name, content in REJECTED.items()}
