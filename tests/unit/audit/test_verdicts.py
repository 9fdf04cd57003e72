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
from pneumo.audit.verdicts import Verdict, assess
from pneumo.data.phantoms import write_phantoms


@pytest.fixture
def root(phantoms: Path, tmp_path: Path) -> Path:
    """A copy of the phantoms, to plant faults in."""
    return Path(shutil.copytree(phantoms, tmp_path / "data"))


def found(root: Path) -> tuple[Findings, dict[str, Verdict]]:
    """Audit; give the findings, and the errors and warnings by their check."""
    findings = audit(root)
    return findings, {v.check: v for v in assess(findings) if v.severity != "note"}


def film(root: Path, pattern: str, number: int = 0) -> Path:
    return sorted(root.glob(pattern))[number]


def resave(source: Path, target: Path, quality: int = 60, grow: float = 1.0, cut: int = 0) -> None:
    with Image.open(source) as image:
        size = (round(grow * image.width), round(grow * image.height))
        image.crop((cut, 0, image.width, image.height)).resize(size).save(target, "JPEG", quality=quality)


def test_an_empty_split_is_told(root: Path) -> None:
    for path in root.glob("val/*/*"):
        path.unlink()
    _, verdicts = found(root)
    assert "val/NORMAL" in verdicts["missing_class"].message


def test_a_clean_tree_has_neither_errors_nor_warnings(phantoms: Path) -> None:
    findings, verdicts = found(phantoms)
    assert verdicts == {}
    assert len(findings.pictures.files) == 112
    assert findings.class_counts() == {
        "train": {"NORMAL": 26, "PNEUMONIA": 38},
        "val": {"NORMAL": 6, "PNEUMONIA": 10},
        "test": {"NORMAL": 13, "PNEUMONIA": 19},
    }
    assert (findings.copies, findings.identical, findings.patients.shared) == ([], (0, 0), ())


def test_another_clean_tree_has_none_either(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "data", seed=1, train=40, val=0, test=20)
    assert found(tmp_path / "data")[1] == {}


def copy_file(root: Path) -> tuple[Path, Path]:
    one = film(root, "train/PNEUMONIA/*")
    return one, Path(shutil.copy(one, root / "test/PNEUMONIA/person900_virus_1.jpeg"))


def copy_changed(root: Path) -> tuple[Path, Path]:
    one, other = film(root, "train/PNEUMONIA/*"), root / "test/PNEUMONIA/person900_virus_1.jpeg"
    resave(one, other, 50, 1.5, cut=4)
    return one, other


@pytest.mark.parametrize(("plant", "identical"), [(copy_file, True), (copy_changed, False)])
def test_a_copy_in_another_split_is_an_error(
    plant: Callable[[Path], tuple[Path, Path]], identical: bool, root: Path
) -> None:
    paths = [path.relative_to(root).as_posix() for path in plant(root)]
    findings, verdicts = found(root)
    assert set(verdicts) == {"copies_across_splits"}
    assert verdicts["copies_across_splits"].severity == "error"
    assert all(path in verdicts["copies_across_splits"].message for path in paths)
    assert [(group.identical, sorted(findings.paths(group))) for group in findings.copies] == [
        (identical, sorted(paths))
    ]
    assert findings.identical == ((1, 2) if identical else (0, 0))


def test_a_copy_under_another_class_is_an_error(root: Path) -> None:
    resave(film(root, "train/NORMAL/*", 3), root / "train" / "PNEUMONIA" / "person901_virus_1.jpeg", 90)
    verdicts = found(root)[1]
    assert {name: verdict.severity for name, verdict in verdicts.items()} == {"conflict": "error"}


def test_few_copies_in_one_split_and_class_are_a_note_and_many_a_warning(root: Path) -> None:
    for number in range(8):
        shutil.copy(film(root, "train/NORMAL/*", number), root / "train" / "NORMAL" / f"IM-90{number}0-0001.jpeg")
        if number == 0:
            findings, verdicts = found(root)
            assert verdicts == {}
            (note,) = (verdict for verdict in assess(findings) if verdict.check == "copies")
            assert "1 image several times" in note.message
            assert "1 under the names of several patients" in note.message
    assert {name: verdict.severity for name, verdict in found(root)[1].items()} == {"copies": "warning"}


def move_second_films(root: Path, most: int) -> int:
    """Move the second film of training patients to the test split; give the number of patients."""
    moved = 0
    for path in sorted(root.glob("train/NORMAL/*-0002.jpeg"))[:most]:
        path.rename(root / "test" / "NORMAL" / path.name)
        moved += 1
    return moved


def test_patients_who_are_in_two_splits_are_an_error(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "data", seed=0, train=100, val=0, test=20)
    moved = move_second_films(tmp_path / "data", 8)
    findings, verdicts = found(tmp_path / "data")
    assert moved == len(findings.patients.shared) == 8
    assert findings.patients.conclusion == "same"
    assert {name: verdict.severity for name, verdict in verdicts.items()} == {"patients": "error"}


def test_a_single_shared_patient_is_reported_too(root: Path) -> None:
    assert move_second_films(root, 1) == 1
    findings, verdicts = found(root)
    assert set(verdicts) == {"patients"}
    assert findings.patients.shared[0] in verdicts["patients"].message


@pytest.mark.slow
def test_strangers_who_share_names_are_no_leak(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_phantoms(root, seed=0, train=200, val=0, test=60)
    for folder, name in (("NORMAL", "IM-{:04d}-9{:03d}.jpeg"), ("PNEUMONIA", "person{}_virus_9{:03d}.jpeg")):
        numbers = [re.findall(r"\d+", path.name)[-2] for path in sorted(root.glob(f"train/{folder}/[Ip]*"))]
        for i, path in enumerate(sorted(root.glob(f"test/{folder}/*"))):
            path.rename(path.with_name(name.format(int(numbers[i]), i)))
    findings, verdicts = found(root)
    assert len(findings.patients.shared) > 40
    assert findings.patients.conclusion == "different"
    assert verdicts == {}
    assert "numbering starts anew" in next(v.message for v in assess(findings) if v.check == "patients")


def test_a_class_of_another_shape_is_a_warning(root: Path) -> None:
    random = np.random.default_rng(0)
    for path in root.glob("*/*/*.*"):
        with Image.open(path) as image:
            wide = random.normal(1.5 if path.parent.name == "PNEUMONIA" else 1.2, 0.05)
            image.resize((round(64 * wide), 64)).save(path)
    _, verdicts = found(root)
    assert verdicts["shape"].severity == "warning"
    assert "augment.stretch" in verdicts["shape"].remedy


def test_classes_that_were_saved_differently_are_an_error(root: Path) -> None:
    for path in root.glob("*/NORMAL/*"):
        resave(path, path, 60)
    findings, verdicts = found(root)
    assert verdicts["metadata"].severity == "error"
    assert set(verdicts) == {"metadata"}
    assert findings.probes[0].low is not None
    assert findings.probes[0].low > 0.9


def test_a_mark_at_the_border_is_a_warning(root: Path) -> None:
    for path in root.glob("*/NORMAL/*"):
        with Image.open(path) as image:
            pixels = np.asarray(image).copy()
        pixels[:6, :30] = 255
        Image.fromarray(pixels).save(path, quality=95)
    verdicts = found(root)[1]
    assert {name: verdict.severity for name, verdict in verdicts.items()} == {"frame": "warning"}


def test_truncated_files_are_an_error_that_names_them(root: Path) -> None:
    path = film(root, "train/NORMAL/*")
    path.write_bytes(path.read_bytes()[:900])
    findings, verdicts = found(root)
    assert {name: verdict.severity for name, verdict in verdicts.items()} == {"unreadable": "error"}
    assert path.name in verdicts["unreadable"].message
    assert [name for name, _ in findings.pictures.unreadable] == [path.relative_to(root).as_posix()]
    assert len(findings.pictures.files) == 111


def test_wrong_suffixes_and_junk_are_named(root: Path) -> None:
    path = film(root, "test/NORMAL/*")
    with Image.open(path) as image:
        image.save(path, "PNG")
    (root / "test" / "NORMAL" / "notes.txt").write_text("x")
    (root / "test" / "NORMAL" / "empty.jpeg").touch()
    (root / "readme.md").write_text("x")
    findings, verdicts = found(root)
    notes = {verdict.check: verdict.message for verdict in assess(findings)}
    assert verdicts == {}
    assert f"{path.name} is PNG" in notes["suffix"]
    assert findings.tree.junk == ("readme.md", "test/NORMAL/empty.jpeg", "test/NORMAL/notes.txt")
    assert "3 other files" in notes["junk"]


def test_a_class_that_a_split_lacks_is_a_warning(root: Path) -> None:
    shutil.rmtree(root / "val" / "NORMAL")
    assert "val/NORMAL" in found(root)[1]["missing_class"].message


def test_the_json_is_the_same_each_time_and_has_no_nan(root: Path) -> None:
    copy_file(root)
    first, second = (to_json(f, assess(f)) for f in (audit(root), audit(root)))
    assert first == second
    content = json.loads(first, parse_constant=pytest.fail)
    assert content["schema"] == 1
    assert (content["images"], content["identical_groups"], content["copies_groups_across_splits"]) == (113, 1, 1)
    assert content["verdicts"][0]["check"] == "copies_across_splits"
    assert sum(row["images"] for row in content["counts"]) == 113


def test_several_classes_without_splits_or_patients(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number, name in enumerate(("a", "b", "c")):
        (tmp_path / name).mkdir()
        for i in range(30):
            noise = random.integers(0, 256, (40, 40 + 4 * number), np.uint8)
            Image.fromarray(noise).save(tmp_path / name / f"{i}.png")
    findings, verdicts = found(tmp_path)
    assert findings.tree.splits == ("all",)
    assert set(verdicts) == {"metadata", "shape"}
    assert findings.probes[0].auroc == pytest.approx(1)
    assert findings.patients.conclusion is None
    assert "no_patients" in {verdict.check for verdict in assess(findings)}


def test_one_class_or_too_few_images_are_said_to_be_unmeasured(tmp_path: Path) -> None:
    for name, image in (("a", Image.linear_gradient("L")), ("b", Image.radial_gradient("L"))):
        (tmp_path / name).mkdir()
        image.resize((40, 40)).point([value // 8 for value in range(256)]).save(tmp_path / name / "only.png")
    findings, verdicts = found(tmp_path)
    assert [probe.auroc for probe in findings.probes] == [None] * 4
    assert set(verdicts) == {"notes"}
    assert {"metadata", "shape", "frame", "thumbnail"} <= {verdict.check for verdict in assess(findings)}
    json.loads(to_json(findings, assess(findings)), parse_constant=pytest.fail)
