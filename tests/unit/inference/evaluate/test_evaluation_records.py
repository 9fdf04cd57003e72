import csv
import io
from pathlib import Path

import numpy as np
from helpers.damaged_images import SMOOTH_IMAGES
from helpers.dicom_files import dicom
from helpers.labelled_site import SUBTYPES, BrightnessNetwork, write_site

from pneumo.inference.evaluate.evaluation import Evaluation
from pneumo.inference.evaluate.evaluation_records import to_csv, to_json
from pneumo.inference.predictor import Predictor

# Scripts of users read these keys: add some, but never rename or remove one.
# fmt: off
_ESTIMATES = (
    "accuracy", "auroc", "balanced_accuracy", "sensitivity", "specificity", "auprc", "f1", "mcc", "ece", "brier",
    "likelihood_ratio_positive", "likelihood_ratio_negative", "ppv", "npv", "calibration_intercept",
    "calibration_slope", "observed_expected", "log_loss",
)
SET_KEYS = {
    "images", "patients", "positives", "prevalence", "predictive_values", "operating_points",
    *(f"{name}{end}" for name in _ESTIMATES for end in ("", "_ci_low", "_ci_high")),
}
KEYS = SET_KEYS | {
    "schema", "notice", "pneumo_version", "checkpoint", "network", "classes", "threshold", "data", "split", "sites",
    "decision_curve", "uncertain_fraction", "accuracy_uncertain", "accuracy_certain", "out_of_distribution_fraction",
    "internal_source", "internal_missing", "internal_images", "internal_auroc", "drop_auroc", "threshold_drop",
    "ranking_drop", "oracle", "oracle_threshold", "subgroups", "subgroup_differences", "confounding",
    "leakage_unchecked", "training_images", "leakage_images", "leakage_pairs", "metrics_without_duplicates",
    "comparison", "stress", "notes", "unreadable", "skipped", "mined_labels", "adaptation", "checklist", "verdicts",
}
# fmt: on
COLUMNS = [
    *("name", "site", "label", "patient", "probability", "predicted_class", "uncertain", "out_of_distribution"),
    *("ood_score", "notes", "error"),
]


def test_keys_of_the_json_file_are_kept(evaluation: Evaluation, model: Predictor, site: Path, tmp_path: Path) -> None:
    content = evaluation.to_dict()
    assert content.keys() >= KEYS
    assert content["comparison"].keys() >= {"other", "other_auroc", "differences"}
    second = write_site(tmp_path, images=20, seed=1)
    assert all(each.keys() >= {"site", *SET_KEYS} for each in model.evaluate([site, second]).to_dict()["sites"])


def test_the_same_data_give_the_same_files(evaluation: Evaluation, site: Path, model: Predictor) -> None:
    other = Predictor(BrightnessNetwork(slope=-1 / 40))
    again = model.evaluate(site, by=("view", "age"), prevalences=(0.05, 0.3), against=other)
    assert to_json(again) == to_json(evaluation)
    assert to_csv(again) == to_csv(evaluation)


def test_the_csv_file_has_one_row_per_image(evaluation: Evaluation) -> None:
    reader = csv.DictReader(io.StringIO(to_csv(evaluation)))
    rows = list(reader)
    assert reader.fieldnames == [*COLUMNS, "age", "sex", "view"]
    assert len(rows) == 120
    predictions = evaluation.cohort.predictions
    assert [float(row["probability"]) for row in rows] == predictions.positive_probability.tolist()
    assert {row["uncertain"] for row in rows} == {"true", "false"}


def test_several_classes_have_columns_of_probabilities(tmp_path: Path) -> None:
    evaluation = Predictor(BrightnessNetwork(SUBTYPES)).evaluate(write_site(tmp_path, images=12, classes=SUBTYPES))
    rows = list(csv.DictReader(io.StringIO(to_csv(evaluation))))
    total = [sum(float(row[name]) for name in SUBTYPES) for row in rows]
    assert np.allclose(total, 1, atol=1e-6)


def test_headers_and_unreadable_files_reveal_no_patient(tmp_path: Path, model: Predictor) -> None:
    (tmp_path / "PNEUMONIA").mkdir()
    (tmp_path / "NORMAL").mkdir()
    for path, pixels in (("PNEUMONIA/a.dcm", SMOOTH_IMAGES[0]), ("NORMAL/b.dcm", SMOOTH_IMAGES[1])):
        (tmp_path / path).write_bytes(dicom(pixels, PatientID="SECRET-7", PatientName="Doe^Jane"))
    (tmp_path / "NORMAL" / "c.png").write_bytes(b"SECRET-7, no image")
    evaluation = model.evaluate(tmp_path)
    rows = list(csv.DictReader(io.StringIO(to_csv(evaluation))))
    assert [row["patient"] for row in rows] == ["header-0001", "header-0001", ""]
    assert (rows[2]["name"], bool(rows[2]["error"]), rows[2]["probability"]) == ("NORMAL/c.png", True, "")
    for text in (to_json(evaluation), to_csv(evaluation), evaluation.to_html()):
        assert "SECRET" not in text
        assert "Doe" not in text


def test_a_column_with_a_standard_name_is_renamed(tmp_path: Path, model: Predictor) -> None:
    table = write_site(tmp_path, images=12)
    table.write_text(table.read_text().replace("sex", "error"))
    assert "extra_error" in to_csv(model.evaluate(table)).splitlines()[0].split(",")
