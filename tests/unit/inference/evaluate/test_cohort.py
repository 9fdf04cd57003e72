from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.damaged_images import SMOOTH_IMAGES
from helpers.dicom_files import dicom
from helpers.labelled_site import SUBTYPES, BrightnessNetwork, write_images

from pneumo.data.duplicates import SIDE
from pneumo.data.labelled_images import LabelledImage, LabelledSet
from pneumo.errors import DataError
from pneumo.inference.evaluate.cohort import match_labels, predict_cohort
from pneumo.inference.predictor import Predictor


def make_set(folder: Path, *labels: str) -> LabelledSet:
    names = [f"{index}.png" for index in range(len(labels))]
    write_images(folder, names, np.arange(len(labels)) * 20 + 80)
    images = [LabelledImage(folder / name, name, label, "", "", "") for name, label in zip(names, labels, strict=True)]
    return LabelledSet("ward", tuple(images), (), ())


def test_a_cohort_has_the_predictions_of_the_predictor_in_order(tmp_path: Path, model: Predictor) -> None:
    labelled = make_set(tmp_path, "NORMAL", "PNEUMONIA", "NORMAL")
    cohort = predict_cohort(model, labelled, keep_thumbnails=True)
    single = list(model.predict([image.file for image in labelled.images]))
    assert cohort.predictions.positive_probability.tolist() == [each.positive_probability for each in single]
    assert cohort.predictions.label.tolist() == [0, 1, 0]
    assert cohort.predictions.paths == ("0.png", "1.png", "2.png")
    assert cohort.uncertain is not None
    assert cohort.uncertain.tolist() == [each.uncertain for each in single]
    assert cohort.thumbnails is not None
    assert cohort.thumbnails.shape == (3, SIDE, SIDE)
    assert cohort.properties.sizes.tolist() == [[32, 32, image.file.stat().st_size] for image in labelled.images]
    assert set(cohort.properties.storage) == {"PNG L"}


def test_unreadable_images_are_left_out_with_their_reason(tmp_path: Path, model: Predictor) -> None:
    labelled = make_set(tmp_path, "NORMAL", "PNEUMONIA", "NORMAL")
    (tmp_path / "1.png").write_bytes(b"")
    cohort = predict_cohort(model, labelled)
    assert [image.name for image in cohort.images] == ["0.png", "2.png"]
    assert cohort.unreadable[0][0] == "1.png"
    assert "empty" in cohort.unreadable[0][1]
    for name in ("0.png", "2.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="None of the 3 images of ward"):
        predict_cohort(model, labelled)


def test_patients_are_given_or_from_the_header_or_one_per_image(tmp_path: Path, model: Predictor) -> None:
    labelled = make_set(tmp_path, "NORMAL", "NORMAL", "NORMAL", "PNEUMONIA")
    for name, identifier in (("0.png", "SECRET-1"), ("1.png", "SECRET-1")):
        (tmp_path / name).write_bytes(dicom(SMOOTH_IMAGES[0], PatientID=identifier))
    images = (*labelled.images[:3], replace(labelled.images[3], patient="given"))
    cohort = predict_cohort(model, replace(labelled, images=images))
    assert cohort.predictions.clusters.tolist() == [0, 0, 1, 2]
    assert [cohort.patient(index) for index in (0, 2, 3)] == ["header-0001", "", "given"]
    assert "SECRET" not in repr(cohort)


def test_labels_are_matched_without_case_where_this_is_unambiguous(tmp_path: Path) -> None:
    labelled = make_set(tmp_path, "normal", "Pneumonia", "NORMAL")
    assert match_labels(labelled, ("NORMAL", "PNEUMONIA")).tolist() == [0, 1, 0]
    assert match_labels(labelled, ("normal", "NORMAL", "PNEUMONIA")).tolist() == [0, 2, 1]


def test_unknown_labels_are_errors_that_list_labels_and_classes(tmp_path: Path) -> None:
    labelled = make_set(tmp_path, "NORMAL", "No Finding", "No Finding", "Covid")
    with pytest.raises(DataError, match=r"No Finding \(2\), Covid \(1\).*NORMAL, PNEUMONIA.*--map 'No Finding=NORMAL'"):
        match_labels(labelled, ("NORMAL", "PNEUMONIA"))
    with pytest.raises(DataError, match="no labelled images"):
        match_labels(replace(labelled, images=()), ("NORMAL", "PNEUMONIA"))


def test_log_odds_of_several_classes_match_their_probabilities(tmp_path: Path) -> None:
    cohort = predict_cohort(Predictor(BrightnessNetwork(SUBTYPES)), make_set(tmp_path, *SUBTYPES))
    predictions = cohort.predictions
    assert predictions.odds is not None
    assert 1 / (1 + np.exp(-predictions.odds)) == pytest.approx(predictions.probability, abs=1e-6)
