from pathlib import Path

import pytest

from pneumo.reporting.figures.run_figures import embed_figures


def write_figure(folder: Path, name: str, content: bytes = b"<?xml?><svg/>") -> Path:
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / "figures" / f"{name}.png").touch()
    path = folder / "figures" / f"{name}.svg"
    path.write_bytes(content)
    return path


def test_figures_are_embedded_and_invalid_files_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, secret = tmp_path / "run", tmp_path / "secret.svg"
    secret.write_bytes(b"<svg>secret</svg>")
    write_figure(run, "roc")
    write_figure(run, "scores", b"root:x:0:0")
    write_figure(run, "shift", b"<svg>" + b" " * (17 << 20))
    write_figure(run, "calibration").unlink()
    (run / "figures" / "calibration.svg").symlink_to(secret)
    found = embed_figures(run)
    assert [name for name, _, _ in found] == ["roc"]
    assert found[0][2] == b"<?xml?><svg/>"
    assert all(f"{name}.svg is not on the page" in caplog.text for name in ("scores", "shift", "calibration"))


def test_a_symlinked_figures_folder_is_not_followed(tmp_path: Path) -> None:
    write_figure(tmp_path / "other", "roc", b"<svg>secret</svg>")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "figures").symlink_to(tmp_path / "other" / "figures")
    assert embed_figures(tmp_path / "run") == []
    (tmp_path / "link").symlink_to(tmp_path / "other")  # the run folder itself may be a link
    assert len(embed_figures(tmp_path / "link")) == 1
