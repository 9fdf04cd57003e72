"""Overlays as arrays, and as files written by `pneumo predict --explain`."""

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import Run
from helpers.damaged_images import SMOOTH_IMAGES, encode_image, smooth_image
from PIL import Image

from pneumo.common.input_format import InputFormat
from pneumo.data.radiograph import decode
from pneumo.inference.explain.overlays import Explanation, draw_examples, name_overlays, overlay, resize_map
from pneumo.inference.prediction import Prediction


def spot(row: int, column: int, size: int = 32) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    values: np.ndarray = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8).astype(np.float32)
    return values


def test_a_map_of_zeros_leaves_the_image_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    blended = overlay(image, np.zeros((32, 32), np.float32), InputFormat(32))
    assert blended.dtype == np.uint8
    assert (blended == image[..., None]).all()


def test_salient_pixels_are_coloured_and_the_image_stays_visible() -> None:
    image = np.full((64, 96), 90, np.uint8)
    image[::2] = 150
    blended = overlay(image, spot(8, 24), InputFormat(32)).astype(int)
    middle, far = blended[16:18, 72], blended[50:52, 10]
    assert np.ptp(middle, axis=1).min() > 60  # of red, green and blue
    assert np.ptp(far, axis=1).max() == 0
    assert np.abs(middle[0] - middle[1]).max() >= 20


@pytest.mark.parametrize("crop_pct", [1.0, 0.857, 0.5])
def test_resizing_a_map_reverses_the_resizing_of_the_image(tmp_path: Path, crop_pct: float) -> None:
    image = np.zeros((180, 260), np.uint8)
    image[76:84, 156:164] = 255
    Image.fromarray(image).save(tmp_path / "image.png")
    network_input = decode(tmp_path / "image.png", InputFormat(64, crop_pct)).astype(np.float32)
    resized = resize_map(network_input / network_input.max(), image.shape, InputFormat(64, crop_pct))
    weight = resized / resized.sum()
    assert (weight.sum(1) @ np.arange(180), weight.sum(0) @ np.arange(260)) == pytest.approx((79.5, 159.5), abs=0.5)


def test_the_map_is_0_outside_the_crop_and_the_crop_is_framed() -> None:
    image = np.full((100, 200), 60, np.uint8)
    assert resize_map(np.ones((32, 32), np.float32), image.shape, InputFormat(32, 0.5))[:24].max() == 0
    blended = overlay(image, np.zeros((32, 32), np.float32), InputFormat(32, 0.5))[..., 0]
    rows, columns = np.nonzero(blended > 60)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (25, 74, 50, 149)
    assert blended[30:70, 60:140].max() == 60


def test_a_figure_shows_each_image_next_to_its_overlay() -> None:
    image = np.full((40, 50), 80, np.uint8)
    prediction = Prediction(Path("-"), {"NORMAL": 0.29, "PNEUMONIA": 0.71}, "PNEUMONIA")
    example = Explanation(prediction, "PNEUMONIA", image, spot(5, 5), InputFormat(32))
    figure = draw_examples([("NORMAL", example)] * 3, "title")
    shown = [axes for axes in figure.axes if axes.images and axes.axison is False]
    assert len(shown) == 6
    assert shown[1].get_title(loc="left") == "predicted PNEUMONIA\np(PNEUMONIA) = 0.710"
    assert (np.asarray(shown[1].images[0].get_array()) == overlay(image, spot(5, 5), InputFormat(32))).all()


def test_overlays_keep_the_inputs_folders_and_aspect_ratios(best: Path, scans: Path, tmp_path: Path, run: Run) -> None:
    assert run(best, scans, "--explain", tmp_path / "maps")[0] == 1
    maps = tmp_path / "maps"
    sizes = {path.relative_to(maps).as_posix(): size_of(path) for path in maps.rglob("*.png")}
    assert sizes.pop("overview.png")[0] > 500
    assert sizes == {"0.png.png": (120, 90), "1.png.png": (64, 64), "2.png.png": (40, 200), "more/0.png": (120, 90)}


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        size: tuple[int, int] = image.size
        return size


def test_overlays_of_large_images_are_downscaled(best: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "image").write_bytes(encode_image(smooth_image(np.random.default_rng(0), 600, 2400), "PNG"))
    assert run(best, tmp_path / "image", "--explain", tmp_path / "maps")[0] == 0
    assert size_of(tmp_path / "maps" / "image.png") == (1024, 256)


def test_overlays_of_different_images_have_different_names(tmp_path: Path) -> None:
    names = ["a/x.png", "a/y/x.png", "b/x.png", "b/x", "overview", "a/../b/x.png"]
    overlays = name_overlays([tmp_path / name for name in names])
    assert list(overlays.values()) == [
        *("a/x.png.png", "a/y/x.png.png", "b/x.png.png", "b/x.png", "overview-2.png", "b/x.png-2.png")
    ]
    assert name_overlays([tmp_path / "x.dcm"]) == {tmp_path / "x.dcm": "x.dcm.png"}


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"a$^$b.png", b"[bold]a\n.png"])
def test_image_names_may_contain_any_characters(name: bytes, best: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / os.fsdecode(name)).write_bytes(encode_image(SMOOTH_IMAGES[1], "PNG"))
    status, _, err = run(best, tmp_path / "scans", "--explain", tmp_path / "maps", "--csv", tmp_path / "x.csv")
    assert status == 0, err
    assert size_of(tmp_path / "maps" / "overview.png")[0] > 300
    assert (tmp_path / "x.csv").exists()
