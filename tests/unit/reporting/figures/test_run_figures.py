from pathlib import Path

import pytest

from pneumo.reporting.figures.run_figures import embed_figures


def draw(folder: Path, name: str, content: bytes = b"<?xml?><svg/>") -> Path:
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / "figures" / f"{name}.png").touch()
    path = folder / "figures" / f"{name}.svg"
    path.write_bytes(content)
    return path


def test_figures_are_embedded_and_other_files_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, secret = tmp_path / "run", tmp_path / "secret.svg"
    secret.write_bytes(b"<svg>secret</svg>")
    draw(run, "roc")
    draw(run, "scores", b"root:x:0:0")
    draw(run, "shift", b"<svg>" + b" " * (17 << 20))
    draw(run, "calibration").unlink()
    (run / "figures" / "calibration.svg").symlink_to(secret)
    found = embed_figures(run)
    assert [name for name, _, _ in found] == ["roc"]
    assert found[0][2] == b"<?xml?><svg/>"
    assert all(f"{name}.svg is not on the page" in caplog.text for name in ("scores", "shift", "calibration"))


def test_a_folder_of_figures_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    draw(tmp_path / "other", "roc", b"<svg>secret</svg>")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "figures").symlink_to(tmp_path / "other" / "figures")
    assert embed_figures(tmp_path / "run") == []
    (tmp_path / "link").symlink_to(tmp_path / "other")  # the run's own folder may be a link
    assert len(embed_figures(tmp_path / "link")) == 1
