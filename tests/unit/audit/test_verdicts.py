import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumo.audit.findings import Findings, audit
from pneumo.audit.inspection import to_json
from pneumo.audit.verdicts import assess
from pneumo.data.image_tree import read_tree
from pneumo.data.phantoms import write_phantoms
from pneumo.reporting.assessment import Verdict


@pytest.fixture
def root(phantoms: Path, tmp_path: Path) -> Path:
    """A copy of the phantoms, in which tests create defects."""
    return Path(shutil.copytree(phantoms, tmp_path / "data"))


def run_audit(root: Path) -> tuple[Findings, dict[str, Verdict]]:
    """Run the audit; return the findings, and the errors and warnings by check."""
    findings = audit(read_tree(root))
    return findings, {v.check: v for v in assess(findings) if v.severity != "note"}


def image_path(root: Path, pattern: str, number: int = 0) -> Path:
    return sorted(root.glob(pattern))[number]


def resave(source: Path, target: Path, quality: int = 60, grow: float = 1.0, cut: int = 0) -> None:
    with Image.open(source) as image:
        size = (round(grow * image.width), round(grow * image.height))
        image.crop((cut, 0, image.width, image.height)).resize(size).save(target, "JPEG", quality=quality)


def test_an_empty_split_is_reported(root: Path) -> None:
    for path in root.glob("val/*/*"):
        path.unlink()
    _, verdicts = run_audit(root)
    assert "val/NORMAL" in verdicts["missing_class"].message


def test_a_clean_tree_has_neither_errors_nor_warnings(phantoms: Path) -> None:
    findings, verdicts = run_audit(phantoms)
    assert verdicts == {}
    assert len(findings.images.files) == 112
    assert findings.class_counts() == {
        "train": {"NORMAL": 26, "PNEUMONIA": 38},
        "val": {"NORMAL": 6, "PNEUMONIA": 10},
        "test": {"NORMAL": 13, "PNEUMONIA": 19},
    }
    assert (findings.duplicates, findings.identical, findings.patients.shared) == ([], (0, 0), ())


def test_another_clean_tree_has_neither_errors_nor_warnings(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "data", seed=1, train=40, val=0, test=20)
    assert run_audit(tmp_path / "data")[1] == {}


def copy_file(root: Path) -> tuple[Path, Path]:
    one = image_path(root, "train/PNEUMONIA/*")
    return one, Path(shutil.copy(one, root / "test/PNEUMONIA/person900_virus_1.jpeg"))


def copy_changed(root: Path) -> tuple[Path, Path]:
    one, other = image_path(root, "train/PNEUMONIA/*"), root / "test/PNEUMONIA/person900_virus_1.jpeg"
    resave(one, other, 50, 1.5, cut=4)
    return one, other


@pytest.mark.parametrize(("copy", "identical"), [(copy_file, True), (copy_changed, False)])
def test_a_duplicate_in_another_split_is_an_error(
    copy: Callable[[Path], tuple[Path, Path]], identical: bool, root: Path
) -> None:
    paths = [path.relative_to(root).as_posix() for path in copy(root)]
    findings, verdicts = run_audit(root)
    assert set(verdicts) == {"copies_across_splits"}
    assert verdicts["copies_across_splits"].severity == "error"
    assert all(path in verdicts["copies_across_splits"].message for path in paths)
    assert [(group.identical, sorted(findings.paths(group))) for group in findings.duplicates] == [
        (identical, sorted(paths))
    ]
    assert findings.identical == ((1, 2) if identical else (0, 0))


def test_a_duplicate_in_another_class_is_an_error(root: Path) -> None:
    resave(image_path(root, "train/NORMAL/*", 3), root / "train" / "PNEUMONIA" / "person901_virus_1.jpeg", 90)
    verdicts = run_audit(root)[1]
    assert {name: verdict.severity for name, verdict in verdicts.items()} == {"conflict": "error"}


def test_few_duplicates_in_one_split_and_class_are_a_note_and_many_a_warning(root: Path) -> None:
    for number in range(8):
        shutil.copy(image_path(root, "train/NORMAL/*", number), root / "train" / "NORMAL" / f"IM-90{number}0-0001.jpeg")
        if number == 0:
            findings, verdicts = run_audit(root)
            assert verdicts == {}
            (note,) = (verdict for verdict in assess(findings) if verdict.check == "copies")
            assert "1 image with several copies" in note.message
            assert "1 under several patient names" in note.message
    assert {name: verdict.severity for name, verdict in run_audit(root)[1].items()} == {"copies": "warning"}


def move_second_images(root: Path, limit: int) -> int:
    """Move the second image of up to `limit` training patients to the test split; return the number of patients."""
    moved = 0
    for path in sorted(root.glob("train/NORMAL/*-0002.jpeg"))[:limit]:
        path.rename(root / "test" / "NORMAL" / path.name)
        moved += 1
    return moved


def test_patients_in_two_splits_are_an_error(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "data", seed=0, train=100, val=0, test=20)
    moved = move_second_images(tmp_path / "data", 8)
    findings, verdicts = run_audit(tmp_path / "data")
    assert moved == len(findings.patients.shared) == 8
    assert findings.patients.conclusion == "same"
    assert {name: verdict.severity for name, verdict in verdicts.items()} == {"patients": "error"}


def test_a_single_shared_patient_is_reported(root: Path) -> None:
    assert move_second_images(root, 1) == 1
    findings, verdicts = run_audit(root)
    assert set(verdicts) == {"patients"}
    assert findings.patients.shared[0] in verdicts["patients"].message


@pytest.mark.slow
def test_different_patients_who_share_names_are_not_an_error(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_phantoms(root, seed=0, train=200, val=0, test=60)
    for folder, name in (("NORMAL", "IM-{:04d}-9{:03d}.jpeg"), ("PNEUMONIA", "person{}_virus_9{:03d}.jpeg")):
        numbers = [re.findall(r"\d+", path.name)[-2] for path in sorted(root.glob(f"train/{folder}/[Ip]*"))]
        for i, path in enumerate(sorted(root.glob(f"test/{folder}/*"))):
            path.rename(path.with_name(name.format(int(numbers[i]), i)))
    findings, verdicts = run_audit(root)
    assert len(findings.patients.shared) > 40
    assert findings.patients.conclusion == "different"
    assert verdicts == {}
    assert "numbering restarts" in next(v.message for v in assess(findings) if v.check == "patients")


def test_a_class_with_another_aspect_ratio_is_a_warning(root: Path) -> None:
    random = np.random.default_rng(0)
    for path in root.glob("*/*/*.*"):
        with Image.open(path) as image:
            wide = random.normal(1.5 if path.parent.name == "PNEUMONIA" else 1.2, 0.05)
            image.resize((round(64 * wide), 64)).save(path)
    _, verdicts = run_audit(root)
    assert verdicts["shape"].severity == "warning"
    assert "augment.stretch" in verdicts["shape"].remedy


def test_classes_that_were_saved_differently_are_an_error(root: Path) -> None:
    for path in root.glob("*/NORMAL/*"):
        resave(path, path, 60)
    findings, verdicts = run_audit(root)
    assert verdicts["metadata"].severity == "error"
    assert set(verdicts) == {"metadata"}
    assert findings.probes[0].low is not None
    assert findings.probes[0].low > 0.9


def test_a_marker_at_the_border_is_a_warning(root: Path) -> None:
    for path in root.glob("*/NORMAL/*"):
        with Image.open(path) as image:
            pixels = np.asarray(image).copy()
        pixels[:6, :30] = 255
        Image.fromarray(pixels).save(path, quality=95)
    verdicts = run_audit(root)[1]
    assert {name: verdict.severity for name, verdict in verdicts.items()} == {"frame": "warning"}


def test_truncated_files_are_an_error_and_named(root: Path) -> None:
    path = image_path(root, "train/NORMAL/*")
    path.write_bytes(path.read_bytes()[:900])
    findings, verdicts = run_audit(root)
    assert {name: verdict.severity for name, verdict in verdicts.items()} == {"unreadable": "error"}
    assert path.name in verdicts["unreadable"].message
    assert [name for name, _ in findings.images.unreadable] == [path.relative_to(root).as_posix()]
    assert len(findings.images.files) == 111


def test_wrong_suffixes_and_junk_are_named(root: Path) -> None:
    path = image_path(root, "test/NORMAL/*")
    with Image.open(path) as image:
        image.save(path, "PNG")
    (root / "test" / "NORMAL" / "notes.txt").write_text("x")
    (root / "test" / "NORMAL" / "empty.jpeg").touch()
    (root / "readme.md").write_text("x")
    findings, verdicts = run_audit(root)
    notes = {verdict.check: verdict.message for verdict in assess(findings)}
    assert verdicts == {}
    assert f"{path.name} is PNG" in notes["suffix"]
    assert findings.tree.junk == ("readme.md", "test/NORMAL/empty.jpeg", "test/NORMAL/notes.txt")
    assert "3 other files" in notes["junk"]


def test_a_class_missing_from_a_split_is_a_warning(root: Path) -> None:
    shutil.rmtree(root / "val" / "NORMAL")
    assert "val/NORMAL" in run_audit(root)[1]["missing_class"].message


def test_the_json_is_reproducible_and_has_no_nan(root: Path) -> None:
    copy_file(root)
    first, second = (to_json(f, assess(f)) for f in (audit(read_tree(root)), audit(read_tree(root))))
    assert first == second
    content = json.loads(first, parse_constant=pytest.fail)
    assert content["schema"] == 1
    assert (content["images"], content["identical_groups"], content["copies_groups_across_splits"]) == (113, 1, 1)
    assert content["verdicts"][0]["check"] == "copies_across_splits"
    assert sum(row["images"] for row in content["counts"]) == 113


def test_three_classes_without_splits_or_patients_are_audited(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number, name in enumerate(("a", "b", "c")):
        (tmp_path / name).mkdir()
        for i in range(30):
            noise = random.integers(0, 256, (40, 40 + 4 * number), np.uint8)
            Image.fromarray(noise).save(tmp_path / name / f"{i}.png")
    findings, verdicts = run_audit(tmp_path)
    assert findings.tree.splits == ("all",)
    assert set(verdicts) == {"metadata", "shape"}
    assert findings.probes[0].auroc == pytest.approx(1)
    assert findings.patients.conclusion is None
    assert "no_patients" in {verdict.check for verdict in assess(findings)}


def test_probes_with_too_few_images_are_reported_as_skipped(tmp_path: Path) -> None:
    for name, image in (("a", Image.linear_gradient("L")), ("b", Image.radial_gradient("L"))):
        (tmp_path / name).mkdir()
        image.resize((40, 40)).point([value // 8 for value in range(256)]).save(tmp_path / name / "only.png")
    findings, verdicts = run_audit(tmp_path)
    assert [probe.auroc for probe in findings.probes] == [None] * 4
    assert set(verdicts) == {"notes"}
    assert {"metadata", "shape", "frame", "thumbnail"} <= {verdict.check for verdict in assess(findings)}
    json.loads(to_json(findings, assess(findings)), parse_constant=pytest.fail)
