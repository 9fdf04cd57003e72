"""All readers of radiographs over one table of files: what one refuses all refuse, with the same reason."""

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

from pneumo.audit.properties import read_pictures
from pneumo.audit.tree import read_tree
from pneumo.data.radiograph import decode, examine_radiograph, read_radiograph
from pneumo.errors import DataError
from pneumo.inference.backend import Rules
from pneumo.inference.inputs import read_input

RULES = Rules("timm/x", ("NORMAL", "PNEUMONIA"), 32, 1.0, 0.5, None, False)
FLAT = np.full((96, 120), 9, np.uint8)
REFUSED = {
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
    "cut off": encode_image(GREY, "JPEG")[:-99],
    "avif": encode_image(GREY, "AVIF"),
    "drawing": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n",
    "memory": DECLARED["png with a palette"],
    "memory of dicom": DECLARED["dicom in rle"],
    "pieces": PIECES["tiff directories"][0],
    "pieces of dicom": PIECES["windows"][0],
}
READ = {"jpeg": encode_image(GREY, "JPEG"), "png": encode_image(DEEP, "PNG"), "dicom": dicom(DEEP)}
READ["precincts"] = encode_image(GREY, "JPEG2000", precinct_size=(256, 256))  # those of small resolutions are smaller


def attempt(read: Callable[..., object], *arguments: object) -> str:
    """Return why the arguments cannot be read; nothing if they can."""
    try:
        read(*arguments)
    except DataError as error:
        return str(error)
    return ""


def reason(read: Callable[..., object], *arguments: object) -> str:
    found = attempt(read, *arguments)
    assert found
    return found


@pytest.fixture(scope="module")
def root(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy a data set and put each file of the tables into it, as an image to train on."""
    root = shutil.copytree(phantoms, tmp_path_factory.mktemp("readers") / "copy")
    for name, content in {**REFUSED, **READ}.items():
        (root / "train" / "NORMAL" / f"{name}.png").write_bytes(content)
    return root


@pytest.mark.parametrize("name", REFUSED)
def test_what_prediction_refuses_all_readers_refuse(name: str, root: Path) -> None:
    path = root / "train" / "NORMAL" / f"{name}.png"
    why = reason(read_radiograph, path)
    assert reason(read_radiograph, path.read_bytes()) == why
    assert reason(examine_radiograph, path) == why
    assert read_input(path, RULES, show=False).error == why  # predict, evaluate, explain
    assert read_input(path.read_bytes(), RULES, show=True).error == why  # serve
    assert reason(decode, path, 32).startswith(f"{path} {why} Training stops")


def test_training_validation_and_test_stop_at_each_of_them(root: Path) -> None:
    data = open_data(root)
    errors = {
        image.path: attempt(list, data.image_blocks([number], 1)) for number, image in enumerate(data.radiographs)
    }
    refused = {path: error for path, error in errors.items() if error}
    assert {Path(path).stem for path in refused} == REFUSED.keys()
    assert all(error.startswith(str(root / path)) for path, error in refused.items())


def test_the_audit_lists_each_of_them_with_the_reason(root: Path) -> None:
    listed = {Path(path).stem: why for path, why in read_pictures(read_tree(root)).unreadable}
    assert listed == {name: reason(read_radiograph, content) for name, content in REFUSED.items()}
