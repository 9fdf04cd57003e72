"""Overlays that `pneumo predict --explain` writes."""

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import Run
from helpers.damaged_images import SMOOTH_IMAGES, encode_image, smooth_image
from PIL import Image

from pneumo.inference.explain.overlay_files import name_pictures


def test_overlays_lie_where_the_inputs_do_at_the_films_aspect(
    best: Path, scans: Path, tmp_path: Path, run: Run
) -> None:
    assert run(best, scans, "--explain", tmp_path / "maps")[0] == 1
    maps = tmp_path / "maps"
    found = {path.relative_to(maps).as_posix(): size_of(path) for path in maps.rglob("*.png")}
    assert found.pop("overview.png")[0] > 500
    assert found == {"0.png.png": (120, 90), "1.png.png": (64, 64), "2.png.png": (40, 200), "more/0.png": (120, 90)}


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_large_films_are_shown_smaller(best: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "film").write_bytes(encode_image(smooth_image(np.random.default_rng(0), 600, 2400), "PNG"))
    assert run(best, tmp_path / "film", "--explain", tmp_path / "maps")[0] == 0
    assert size_of(tmp_path / "maps" / "film.png") == (1024, 256)


def test_pictures_of_different_films_have_different_names(tmp_path: Path) -> None:
    names = ["a/x.png", "a/y/x.png", "b/x.png", "b/x", "overview", "a/../b/x.png"]
    given = name_pictures([tmp_path / name for name in names])
    assert list(given.values()) == [
        *("a/x.png.png", "a/y/x.png.png", "b/x.png.png", "b/x.png", "overview-2.png", "b/x.png-2.png")
    ]
    assert name_pictures([tmp_path / "x.dcm"]) == {tmp_path / "x.dcm": "x.dcm.png"}


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"a$^$b.png", b"[bold]a\n.png"])
def test_films_may_have_any_name(name: bytes, best: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / os.fsdecode(name)).write_bytes(encode_image(SMOOTH_IMAGES[1], "PNG"))
    status, _, err = run(best, tmp_path / "scans", "--explain", tmp_path / "maps", "--csv", tmp_path / "x.csv")
    assert status == 0, err
    assert size_of(tmp_path / "maps" / "overview.png")[0] > 300
    assert (tmp_path / "x.csv").exists()
