import base64
import json
import os
import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.damaged_images import SMOOTH_IMAGES, encode_image
from helpers.hostile_names import CONTROLS, NAMES, is_harmless
from PIL import Image

from pneumo import cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pneumo", "audit", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture
def flawed(tmp_path: Path) -> Path:
    """Two classes with one duplicate and one unreadable file; the page must escape their names."""
    root = tmp_path / "<i>data & more"
    random = os.urandom(64 * 64)
    for name in ("A<b>", "B[bold]"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            Image.frombytes("L", (64, 64), os.urandom(64 * 64)).save(root / name / f"{number}.png")
        Image.frombytes("L", (64, 64), random).save(root / name / "<script>alert(1)<.png")
    (root / "A<b>" / "<u>broken.png").write_bytes(b"no image")
    return root


def test_findings_are_printed_and_written_to_html_and_json(
    flawed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, document = tmp_path / "out" / "audit.html", tmp_path / "out" / "audit.json"
    assert run(monkeypatch, flawed, "--html", page, "--json", document) == 0
    printed = capsys.readouterr().out
    assert "2 errors" in printed
    assert "B[bold]" in printed
    assert max(len(line) for line in printed.splitlines()) <= 80
    html = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;.png" in html
    assert "&lt;u&gt;broken.png" in html
    assert not any(tag in html for tag in ("<script>", "<u>", "<i>", "A<b>"))
    assert 'src="http' not in html
    assert html.count("data:image/jpeg;base64,") == 2
    content = json.loads(document.read_text(encoding="utf-8"))
    assert [verdict["check"] for verdict in content["verdicts"][:2]] == ["unreadable", "conflict"]
    assert content["copies"] == [
        {"identical": True, "paths": ["A<b>/<script>alert(1)<.png", "B[bold]/<script>alert(1)<.png"]}
    ]


def test_strict_fails_on_error_verdicts(flawed: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, flawed, "--strict") == 1
    assert run(monkeypatch, phantoms, "--strict") == 0


def test_classes_can_be_selected(
    phantoms: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, phantoms, "--classes", "PNEUMONIA") == 0
    printed = " ".join(capsys.readouterr().out.split())  # long folder names wrap
    assert "67 images of 1 class in train" in printed


def test_a_missing_root_prints_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, tmp_path / "nowhere") == 1
    error = capsys.readouterr().err
    assert "nowhere does not exist" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_folder_as_output_file_is_rejected_before_the_audit(
    option: str, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, phantoms, option, tmp_path) == 1
    captured = capsys.readouterr()
    assert f"{option} {tmp_path} is a folder" in captured.err
    assert captured.out == ""


def test_a_file_that_cannot_be_written_is_an_error(
    flawed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(monkeypatch, flawed, "--json", tmp_path / "file" / "audit.json") == 1
    captured = capsys.readouterr()
    assert "cannot be written" in captured.err
    assert captured.out == ""  # reported before the audit starts


def test_images_without_contrast_can_be_plotted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A", "B"):
        (tmp_path / "data" / name).mkdir(parents=True)
        image = Image.new("L", (40, 40))
        image.putpixel((0, 0), 1)
        image.save(tmp_path / "data" / name / "1.png")
    shutil.copy(tmp_path / "data" / "A" / "1.png", tmp_path / "data" / "A" / "2.png")
    assert run(monkeypatch, tmp_path / "data", "--html", tmp_path / "audit.html") == 0
    assert "Mean image" in (tmp_path / "audit.html").read_text(encoding="utf-8")


def test_malicious_file_names_are_escaped_in_all_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / f"<b>[/y]{CONTROLS}"
    for name in ("$x^$", f"=B\n{CONTROLS}"):
        (root / name).mkdir(parents=True)
        for number, other in enumerate(NAMES):
            path = root / name / other.replace("/", "")
            path.write_bytes(encode_image(SMOOTH_IMAGES[number % 3], "PNG") if number else b"no image")
        (root / name / f"<u>\n{CONTROLS}.txt").touch()
    page, document = tmp_path / "audit.html", tmp_path / "audit.json"
    assert run(monkeypatch, root, "--html", page, "--json", document) == 0
    printed, html = capsys.readouterr().out, page.read_text(encoding="utf-8")
    assert is_harmless(printed)
    assert is_harmless(html)
    assert max(len(line) for line in printed.splitlines()) <= 80
    assert not any(tag in html for tag in ("<img src=x", "<u>", "<b>[", "<b>x"))
    for svg in re.findall(r"image/svg\+xml;base64,([^\"]*)", html):
        ElementTree.fromstring(base64.b64decode(svg))
    content = json.loads(document.read_text(encoding="utf-8"))
    assert (len(content["unreadable"]), len(content["junk"])) == (2, 2)
