"""Fixtures: a checkpoint, input files, a labelled set and the command."""

from pathlib import Path

import pytest
from helpers.checkpoints import write_checkpoint
from helpers.commands import Run, command_runner
from helpers.damaged_images import SMOOTH_IMAGES, encode_image
from helpers.dicom_files import dicom
from helpers.ensembles import write_members
from helpers.labelled_site import write_site

from pneumo.inference.ensemble_writer import write_ensemble


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best.ckpt")


@pytest.fixture(scope="session")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write two checkpoints of different architectures; tests must not change them."""
    return write_members(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def ensemble(members: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the ensemble of these checkpoints; tests must not change it."""
    path = tmp_path_factory.mktemp("ensemble") / "ensemble.ckpt"
    write_ensemble(members, path)
    return path


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the table of a labelled set; tests must not change its folder."""
    return write_site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Create three images, one of them as DICOM too, and a text file."""
    folder = tmp_path / "scans"
    (folder / "more").mkdir(parents=True)
    for index, pixels in enumerate(SMOOTH_IMAGES):
        (folder / f"{index}.png").write_bytes(encode_image(pixels, "PNG"))
    (folder / "more" / "0").write_bytes(dicom(255 - SMOOTH_IMAGES[0], photometric="MONOCHROME1", ViewPosition="LL"))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `pneumo predict`; return its status, output and errors."""
    return command_runner("predict", monkeypatch, capsys)
