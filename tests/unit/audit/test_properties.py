import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumo.audit.findings import Findings, audit
from pneumo.audit.inspection import to_json
from pneumo.audit.tables import listings
from pneumo.audit.verdicts import assess
from pneumo.data.image_tree import read_tree

DARK = "12-bit values in a 16-bit file look too dark: multiply them by 16 and save the file again"


def audit_images(root: Path, deep: int, faint: int = 0) -> Findings:
    """Audit two classes of four images: the first `faint` have low contrast, the next `deep` 12 of 16 bits."""
    for number in range(8):
        folder = root / "ab"[number // 4]
        folder.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40), np.uint8)
        values = pixels // 16 if number < faint else pixels * np.uint16(16) if number < faint + deep else pixels
        Image.fromarray(values).save(folder / f"{number}.png")
    return audit(read_tree(root))


def test_doubtful_images_are_summarized_and_listed(tmp_path: Path) -> None:
    findings = audit_images(tmp_path, deep=4, faint=1)
    verdicts = assess(findings)
    (verdict,) = (verdict for verdict in verdicts if verdict.check == "notes")
    assert verdict.severity == "warning"
    assert verdict.message == (
        f"5 doubtful images:\n- {DARK} (4 images: a/1.png, a/2.png, a/3.png and 1 more)\n"
        "- low contrast (grey values 0 to 15 of 255) (1 image: a/0.png)"
    )
    assert json.loads(to_json(findings, verdicts))["notes"] == [
        {"path": "a/0.png", "notes": ["low contrast (grey values 0 to 15 of 255)"]},
        *({"path": path, "notes": [DARK]} for path in ("a/1.png", "a/2.png", "a/3.png", "b/4.png")),
    ]
    shown = {title: lines for title, lines, _ in listings(findings)}["Doubtful images"]
    assert shown[1:] == [f"{path}: {DARK}" for path in ("a/1.png", "a/2.png", "a/3.png", "b/4.png")]


def test_images_without_notes_are_not_listed(tmp_path: Path) -> None:
    findings = audit_images(tmp_path, deep=0)
    assert "notes" not in {verdict.check for verdict in assess(findings)}
    assert json.loads(to_json(findings, []))["notes"] == []
    assert "Doubtful images" not in dict((title, lines) for title, lines, _ in listings(findings))


@pytest.mark.parametrize("orientation", [1, 6])
def test_width_and_height_are_those_of_the_reoriented_image(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in "ab":
        (tmp_path / name).mkdir()
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (40, 60), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / "1.jpg", exif=exif)
    images = audit(read_tree(tmp_path)).images
    assert [(info.width, info.height) for info in images.infos] == [(60, 40) if orientation == 1 else (40, 60)] * 2
    assert bool(images.noted()) == (orientation == 6)
