from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.labelled_site import CLASSES, SUBTYPES, BrightnessNetwork, write_site

from pneumo.inference.backend import Images, Scores
from pneumo.inference.evaluate.caveats import MIN_IMAGES, assess
from pneumo.inference.evaluate.evaluation import Evaluation
from pneumo.inference.evaluate.reference import Reference
from pneumo.inference.predictor import Predictor
from pneumo.metrics.predictions import Predictions
from pneumo.reporting.assessment import Verdict


def find(evaluation: Evaluation) -> dict[str, Verdict]:
    return {verdict.check: verdict for verdict in assess(evaluation)}


def test_verdicts_are_sorted_by_severity_and_state_what_to_do(evaluation: Evaluation) -> None:
    verdicts = assess(evaluation)
    order = ["error", "warning", "note"]
    assert verdicts == sorted(verdicts, key=lambda verdict: order.index(verdict.severity))
    assert all(verdict.message.endswith((".", ")")) or "\n" in verdict.message for verdict in verdicts)


@pytest.mark.parametrize(("images", "few"), [(2 * MIN_IMAGES, False), (2 * MIN_IMAGES - 2, True)])
def test_few_images_of_a_class_are_a_warning(images: int, few: bool, tmp_path: Path, model: Predictor) -> None:
    found = find(model.evaluate(write_site(tmp_path, images=images)))
    assert ("few_images" in found) == few
    assert not few or f"{images // 2} NORMAL" in found["few_images"].message


def test_mined_labels_and_unknown_patients_are_stated(tmp_path: Path, model: Predictor) -> None:
    table = write_site(tmp_path, images=12)
    table.write_text(table.read_text().replace("patient", "name"))
    found = find(model.evaluate(table, mined_labels=True))
    assert "reports" in found["mined_labels"].message
    assert "12 of 12 images" in found["no_patients"].message


def test_a_network_with_one_prediction_is_collapsed(tmp_path: Path) -> None:
    model = Predictor(BrightnessNetwork(slope=0.0))  # probability 0.5, above the threshold
    found = find(model.evaluate(write_site(tmp_path, images=20)))
    assert found["collapsed"].severity == "error"
    assert "PNEUMONIA" in found["collapsed"].message


def test_a_drop_from_the_internal_test_is_a_warning_with_its_cause(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    positive = np.arange(400) % 2 == 1
    margin = generator.normal(0, 1, 400) + 8 * positive - 4
    stored = Predictions.binary(1 / (1 + np.exp(-margin)), positive, margin > -0.4, CLASSES, (), margin)
    found = find(Predictor(BrightnessNetwork(stored=stored)).evaluate(write_site(tmp_path)))
    assert "AUROC by" in found["external_drop"].message
    overconfident = Predictor(BrightnessNetwork(slope=1.0)).evaluate(write_site(tmp_path / "other"))
    assert "pneumo adapt" in find(overconfident)["calibration"].remedy


def test_an_auroc_that_may_be_chance_is_a_warning_without_adaptation(tmp_path: Path) -> None:
    table = write_site(tmp_path, images=40)
    chance = Predictor(BrightnessNetwork(slope=0.0)).evaluate(table)
    found = find(chance)
    assert found["discrimination"].severity == "warning"
    assert "0.500 (" in found["discrimination"].message
    assert "no better than chance" in found["discrimination"].message
    inverse = find(Predictor(BrightnessNetwork(slope=-1.0)).evaluate(write_site(tmp_path / "more", images=200)))
    assert "ranks the classes inversely" in inverse["discrimination"].message
    assert {"collapsed", "calibration"} <= found.keys() | inverse.keys()
    assert "Do not adapt" in found["collapsed"].remedy
    assert not [v for v in (*found.values(), *inverse.values()) if "pneumo adapt" in v.remedy]


class ConstantNetwork(BrightnessNetwork):
    def score(self, images: Images) -> Scores:
        return np.tile(np.array([0.2, 0.5, 0.3], np.float32), (len(images), 1)), super().score(images)[1]


def test_no_adaptation_is_recommended_for_three_classes(tmp_path: Path) -> None:
    table = write_site(tmp_path, images=60, classes=SUBTYPES)
    found = find(Predictor(ConstantNetwork(SUBTYPES)).evaluate(table))
    assert found["collapsed"].remedy == "Use another network."
    assert not [verdict for verdict in found.values() if "adapt" in verdict.remedy]


def test_a_good_auroc_is_no_warning(tmp_path: Path, model: Predictor) -> None:
    assert "discrimination" not in find(model.evaluate(write_site(tmp_path, images=200)))


def test_a_run_that_cannot_be_verified_is_a_note(evaluation: Evaluation) -> None:
    predictions = evaluation.overall.predictions
    for run in (None, "RUN"):
        reference = Reference(predictions, 0.4, "RUN/predictions.csv", unverified_run=run)
        assert ("run_unverified" in find(replace(evaluation, reference=reference))) == (run is not None)


def test_unreadable_and_skipped_files_are_grouped_by_reason(tmp_path: Path, model: Predictor) -> None:
    for name in CLASSES:
        folder = tmp_path / name
        folder.mkdir()
        write_site(folder, images=6)
        (folder / "000.png").write_bytes(b"x")
    found = find(model.evaluate(tmp_path))
    assert "2 files" in found["unreadable"].message
    assert "NORMAL/000.png" in found["unreadable"].message
    assert "2 other entries" in found["skipped"].message  # labels.csv


def test_different_subgroups_and_images_out_of_distribution_are_warnings(tmp_path: Path, model: Predictor) -> None:
    table = write_site(tmp_path, images=200)
    lines = table.read_text().splitlines()
    scored = model.evaluate(table).cohort.predictions.predicted
    bright = [f"{line},{'bright' if value else 'dark'}" for line, value in zip(lines[1:], scored, strict=True)]
    table.write_text("\n".join([f"{lines[0]},exposure", *bright]) + "\n")
    found = find(model.evaluate(table, by=["exposure"]))
    assert "exposure bright: sensitivity" in found["subgroups"].message
