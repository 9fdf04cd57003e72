from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from helpers.run_files import write_outputs, write_run
from scipy.special import expit
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from pneumo.cli.commands import report
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.summary import count_outcomes
from pneumo.reporting.figures.run_figures import draw_test
from pneumo.reporting.generalization import GAP_METRICS, GeneralizationGap, best_threshold, measure_gap, read_gap
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.results import read_results

ALWAYS_DRAWN = {"confusion_matrix", "roc", "precision_recall", "scores", "calibration", "predictions"}
POSITIVE = np.arange(600) % 8 >= 3


def predictions(scores: np.ndarray) -> Predictions:
    probability = expit(scores)
    return Predictions.binary(probability, POSITIVE, probability > 0.5, ("NORMAL", "PNEUMONIA"))


def separated(distance: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(distance * (POSITIVE - 0.5), 1)


@pytest.mark.parametrize("levels", [2, 20, 10_000])
def test_best_threshold_matches_an_exhaustive_search(levels: int) -> None:
    scores = np.round(separated(1.5) * levels) / levels
    value, threshold = best_threshold(predictions(scores))
    probability = expit(scores)
    balanced = [balanced_accuracy_score(POSITIVE, probability > cut) for cut in [0.0, *probability]]
    assert value == pytest.approx(max(balanced))
    assert balanced_accuracy_score(POSITIVE, probability > threshold) == pytest.approx(value)


def test_a_common_offset_of_scores_is_a_drop_due_to_the_threshold() -> None:
    found = measure_gap(predictions(separated(4)), predictions(separated(4) + 2))
    assert found.drop["auroc"].value == 0
    assert found.drop["balanced_accuracy"].value > 0.1
    assert found.threshold_drop == pytest.approx(found.drop["balanced_accuracy"].value, abs=0.01)
    assert abs(found.ranking_drop) < 0.01


def test_less_separated_scores_are_a_drop_due_to_the_ranking() -> None:
    found = measure_gap(predictions(separated(4)), predictions(separated(1.5, seed=1)))
    drop = found.drop["balanced_accuracy"]
    assert drop.low > 0.1
    assert found.drop["auroc"].low > 0.05
    assert found.threshold_drop < 0.02
    assert found.ranking_drop > 0.1
    assert found.threshold_drop + found.ranking_drop == pytest.approx(drop.value)


def test_metrics_match_scikit_learn() -> None:
    found = measure_gap(predictions(separated(3)), predictions(separated(2, seed=1)))
    for metrics, predicted in ((found.validation_metrics, found.validation), (found.test_metrics, found.test)):
        assert metrics["auroc"].value == pytest.approx(roc_auc_score(POSITIVE, predicted.score))
        assert metrics["balanced_accuracy"].value == pytest.approx(
            balanced_accuracy_score(POSITIVE, predicted.predicted)
        )
    assert set(found.drop) == set(GAP_METRICS)


def draw_figures(run: Path) -> Iterable[str]:
    results = read_results(run) or {}
    return draw_test(run, read_predictions(run, results), results, lambda paths: np.zeros((len(paths), 8, 8), np.uint8))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "resnext-sgd-s0"
    write_run(folder, "resnext", "sgd", 0, wrong=10, images=600)
    write_outputs(folder / "predictions.csv", POSITIVE, expit(separated(4) + 2))
    write_outputs(folder / "validation.csv", POSITIVE, expit(separated(4)))
    return folder


def test_report_of_a_run_prints_the_drop_from_validation_to_test(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report([run], tmp_path / "out")
    shown = " ".join(capsys.readouterr().out.split())
    assert "From 600 validation to 600 test images" in shown
    found = read_gap(run, read_results(run) or {})
    assert isinstance(found, GeneralizationGap)
    assert f"At most {found.threshold_drop:.3f} of this is due to the threshold" in shown
    assert "a bound, not a result" in shown
    assert "a bound, not a result" in (tmp_path / "out" / "leaderboard.md").read_text()
    assert (tmp_path / "out" / "figures" / "shift.png").is_file()


@pytest.mark.parametrize(
    ("label", "reason"),
    [(None, "has no validation.csv"), (np.ones(600, bool), "all of one class")],
)
def test_report_prints_why_sets_are_not_compared(
    label: np.ndarray | None, reason: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "validation.csv").unlink()
    if label is not None:
        write_outputs(run / "validation.csv", label, np.linspace(0, 1, 600))
    report([run])
    assert reason in " ".join(capsys.readouterr().out.split())
    assert set(draw_figures(run)) == ALWAYS_DRAWN


def test_a_run_with_validation_csv_has_the_shift_figure(run: Path) -> None:
    assert set(draw_figures(run)) == {*ALWAYS_DRAWN, "shift"}


def test_a_probability_equal_to_the_threshold_is_negative(tmp_path: Path) -> None:
    # Runs compare in single precision, where the probability equals the threshold and is not above it.
    threshold = float(np.float32(0.3))
    write_run(tmp_path / "run", "resnext", "sgd", 0, wrong=10, images=8, threshold=threshold)
    lines = ["path,label,probability,prediction"]
    lines += [f"test/0.jpeg,NORMAL,{threshold:.9g},NORMAL", "test/1.jpeg,NORMAL,0.400000006,PNEUMONIA"]
    (tmp_path / "run" / "predictions.csv").write_text("\n".join(lines) + "\n")
    counts = count_outcomes(np.array([0, 0]), np.array([0, 1]))
    found = read_predictions(tmp_path / "run", {**(read_results(tmp_path / "run") or {}), **counts})
    assert found.predicted.tolist() == [False, True]
    assert found.positive.tolist() == [False, False]


def test_best_threshold_uses_the_margin_of_saturated_images() -> None:
    margin = separated(2) + 40
    saturated = Predictions.binary(np.ones(600), POSITIVE, np.ones(600, bool), margin=margin)
    value, threshold = best_threshold(saturated)
    assert value == pytest.approx(max(balanced_accuracy_score(POSITIVE, margin > cut) for cut in margin))
    assert value > 0.8
    assert threshold == 1.0
