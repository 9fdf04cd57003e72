import csv
import logging
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pneumo.data.index import Radiograph
from pneumo.data.splits import check_split, split_radiographs
from pneumo.errors import ConfigError, DataError
from pneumo.runs.split_files import write_splits


def radiographs(patients: int, val: int = 4) -> list[Radiograph]:
    """Build an index of patients with one to three images each, two thirds of them with pneumonia."""
    images = []
    for patient in range(patients):
        subtype = ("none", "bacterial", "viral")[patient % 3]
        for image in range(1 + patient % 4 % 3):
            images.append(
                Radiograph(f"train/{patient}-{image}", int(subtype != "none"), subtype, f"p{patient}", "train", 1, 0)
            )
    images += [Radiograph(f"val/{i}", i % 2, "none", f"v{i}", "val", 1, 0) for i in range(val)]
    return images + [Radiograph(f"test/{i}", i % 2, "none", f"p{i}", "test", 1, 0) for i in range(10)]


def test_the_official_split_uses_the_folders() -> None:
    images = radiographs(60)
    splits = split_radiographs(images, "official", 0.1, 0)
    assert splits == {name: [image for image in images if image.split == name] for name in ("train", "val", "test")}


def test_copies_of_test_images_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    images = radiographs(60)
    groups = list(range(len(images)))
    tested = next(i for i, image in enumerate(images) if image.split == "test")
    with caplog.at_level(logging.WARNING):
        split_radiographs(images, "patient", 0.1, 0, duplicate_groups=groups)
        assert not caplog.text
        copied = [*groups[:tested], groups[3], *groups[tested + 1 :]]
        split_radiographs(images, "patient", 0.1, 0, duplicate_groups=copied)
    assert f"1 training images, such as {images[3].path}, are near-duplicates of test images" in caplog.text


@settings(max_examples=30, deadline=None)
@given(patients=st.integers(40, 200), seed=st.integers(0, 2**31 - 1))
def test_patients_are_in_one_split_only_and_all_images_are_used(patients: int, seed: int) -> None:
    images = radiographs(patients)
    splits = split_radiographs(images, "patient", 0.1, seed)
    assert not {image.patient for image in splits["train"]} & {image.patient for image in splits["val"]}
    assert sorted(image.path for part in splits.values() for image in part) == sorted(image.path for image in images)
    assert [image.path for image in splits["test"]] == [image.path for image in images if image.split == "test"]
    assert {image.split for image in splits["val"]} == {"val"}


def test_the_held_out_fraction_and_classes_are_balanced() -> None:
    splits = split_radiographs(radiographs(900), "patient", 0.1, 0)
    total = len(splits["train"]) + len(splits["val"])
    assert len(splits["val"]) / total == pytest.approx(0.1, abs=0.02)
    fractions = [
        Counter(image.subtype for image in splits[name])["viral"] / len(splits[name]) for name in ("train", "val")
    ]
    assert fractions[0] == pytest.approx(fractions[1], abs=0.03)


@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.25, 0.33, 0.4, 0.5])
def test_any_fraction_can_be_held_out(fraction: float) -> None:
    splits = split_radiographs(radiographs(900), "patient", fraction, 0)
    assert len(splits["val"]) / (len(splits["train"]) + len(splits["val"])) == pytest.approx(fraction, abs=0.01)


@pytest.mark.parametrize("fraction", [0.15, 0.33, 0.4])
def test_few_patients_are_divided_as_well_as_possible(fraction: float) -> None:
    images = radiographs(20, val=0)
    splits = split_radiographs(images, "patient", fraction, 0)
    assert 0 < len(splits["val"]) < len(splits["train"])


def test_the_split_depends_on_the_seed() -> None:
    images = radiographs(90)
    assert split_radiographs(images, "patient", 0.1, 1) == split_radiographs(images, "patient", 0.1, 1)
    assert split_radiographs(images, "patient", 0.1, 1) != split_radiographs(images, "patient", 0.1, 2)


def test_too_few_patients_and_unknown_splits_are_errors() -> None:
    with pytest.raises(DataError, match=r"at most [1-4] of one class and subtype, are too few .* needs 10 patients"):
        split_radiographs(radiographs(4, val=0), "patient", 0.1, 0)
    with pytest.raises(ConfigError, match=r"data\.split=nosuch"):
        check_split("nosuch", 5, 0)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=40, max_size=120),
    normal=st.lists(st.integers(1, 30), min_size=10, max_size=20),
    seed=st.integers(0, 2**31 - 1),
)
def test_patients_with_many_images_do_not_distort_the_fraction(sizes: list[int], normal: list[int], seed: int) -> None:
    images = []
    for label, counts in ((0, normal), (1, sizes)):
        for patient, count in enumerate(counts):
            name = f"{label}-{patient}"
            kind = "bacterial" if label else "none"
            images += [Radiograph(f"train/{name}-{i}", label, kind, name, "train", 1, 0) for i in range(count)]
    splits = split_radiographs(images, "patient", 0.2, seed)
    for label, counts in ((0, normal), (1, sizes)):
        held = sum(image.label == label for image in splits["val"])
        assert abs(held - 0.2 * sum(counts)) <= max(counts) / 2 + 0.2 * max(counts)
        assert held > 0


def test_a_class_that_would_be_missing_in_one_split_is_an_error() -> None:
    images = radiographs(60, val=0)
    images += [Radiograph(f"train/rare-{i}", 2, "rare", "rare", "train", 1, 0) for i in range(4)]
    with pytest.raises(DataError, match=r"leaves no image of it in (train|val)"):
        split_radiographs(images, "patient", 0.1, 0)


@settings(max_examples=30, deadline=None)
@given(patients=st.integers(40, 120), seed=st.integers(0, 2**31 - 1), folds=st.integers(2, 6))
def test_each_image_is_held_out_in_one_fold_and_patients_are_not_divided(patients: int, seed: int, folds: int) -> None:
    images = radiographs(patients)
    held_out: list[str] = []
    for fold in range(folds):
        splits = split_radiographs(images, "kfold", 0.1, seed, folds, fold)
        assert not {image.patient for image in splits["train"]} & {image.patient for image in splits["val"]}
        assert len(splits["test"]) == 10
        held_out += [image.path for image in splits["val"]]
    assert sorted(held_out) == sorted(image.path for image in images if image.split != "test")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), split=st.sampled_from(["patient", "kfold"]), data=st.data())
def test_near_duplicates_stay_together(seed: int, split: str, data: st.DataObject) -> None:
    images = radiographs(120)
    size = len(images)
    groups = data.draw(st.lists(st.integers(0, size), min_size=size, max_size=size))
    groups = [group if i % 4 == 0 else size + 1 + i for i, group in enumerate(groups)]  # a quarter may have duplicates
    try:
        splits = split_radiographs(images, split, 0.2, seed, 4, 1, groups)
    except DataError:
        assume(False)  # all images of a class are linked
    group_of = {image.path: group for image, group in zip(images, groups, strict=True)}
    train, val = ({group_of[image.path] for image in splits[name]} for name in ("train", "val"))
    assert not train & val


def test_folds_are_stratified_by_class_and_subtype() -> None:
    for fold in range(5):
        splits = split_radiographs(radiographs(900), "kfold", 0.1, 3, 5, fold)
        viral = [Counter(i.subtype for i in splits[name])["viral"] / len(splits[name]) for name in ("train", "val")]
        assert viral[0] == pytest.approx(viral[1], abs=0.02)
        assert len(splits["val"]) / len(splits["train"]) == pytest.approx(0.25, abs=0.02)


def test_impossible_folds_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"data\.fold=5 is out of range.* 0 to 4.*data\.fold=0,1,2,3,4"):
        check_split("kfold", 5, 5)
    with pytest.raises(DataError, match=r"too few for data\.folds=90"):
        split_radiographs(radiographs(60), "kfold", 0.1, 0, 90, 0)


def test_split_files_list_the_split_of_each_image(tmp_path: Path) -> None:
    splits = split_radiographs(radiographs(60), "patient", 0.1, 0)
    write_splits(tmp_path / "splits.csv", splits, ["NORMAL", "PNEUMONIA"])
    with (tmp_path / "splits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["path"], row["split"]) for row in rows} == {
        (image.path, name) for name, part in splits.items() for image in part
    }
    assert {(row["class"], row["subtype"]) for row in rows if row["split"] != "test"} == {
        ("NORMAL", "none"),
        ("PNEUMONIA", "bacterial"),
        ("PNEUMONIA", "viral"),
        ("PNEUMONIA", "none"),
    }
