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
from pneumo.reporting.generalization import SHOWN, Shift, best_threshold, measure_shift, read_shift
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.results import read_results

ALWAYS = {"confusion_matrix", "roc", "precision_recall", "scores", "calibration", "predictions"}
POSITIVE = np.arange(600) % 8 >= 3


def answers(scores: np.ndarray) -> Predictions:
    probability = expit(scores)
    return Predictions.binary(probability, POSITIVE, probability > 0.5, ("NORMAL", "PNEUMONIA"))


def separated(distance: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(distance * (POSITIVE - 0.5), 1)


@pytest.mark.parametrize("levels", [2, 20, 10_000])
def test_the_best_threshold_is_that_of_a_search(levels: int) -> None:
    scores = np.round(separated(1.5) * levels) / levels
    value, threshold = best_threshold(answers(scores))
    probability = expit(scores)
    tried = [balanced_accuracy_score(POSITIVE, probability > other) for other in [0.0, *probability]]
    assert value == pytest.approx(max(tried))
    assert balanced_accuracy_score(POSITIVE, probability > threshold) == pytest.approx(value)


def test_scores_that_moved_together_lose_by_the_threshold_alone() -> None:
    found = measure_shift(answers(separated(4)), answers(separated(4) + 2))
    assert found.loss["auroc"].value == 0
    assert found.loss["balanced_accuracy"].value > 0.1
    assert found.by_threshold == pytest.approx(found.loss["balanced_accuracy"].value, abs=0.01)
    assert abs(found.by_ranking) < 0.01


def test_scores_that_came_closer_lose_by_ranking() -> None:
    found = measure_shift(answers(separated(4)), answers(separated(1.5, seed=1)))
    loss = found.loss["balanced_accuracy"]
    assert loss.low > 0.1
    assert found.loss["auroc"].low > 0.05
    assert found.by_threshold < 0.02
    assert found.by_ranking > 0.1
    assert found.by_threshold + found.by_ranking == pytest.approx(loss.value)


def test_figures_are_those_of_scikit_learn() -> None:
    found = measure_shift(answers(separated(3)), answers(separated(2, seed=1)))
    for side, said in ((found.held_out, found.validation), (found.official, found.test)):
        assert side["auroc"].value == pytest.approx(roc_auc_score(POSITIVE, said.score))
        assert side["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(POSITIVE, said.predicted))
    assert set(found.loss) == set(SHOWN)


def drawn(run: Path) -> Iterable[str]:
    results = read_results(run) or {}
    return draw_test(run, read_predictions(run, results), results, lambda paths: np.zeros((len(paths), 8, 8), np.uint8))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "resnext-sgd-s0"
    write_run(folder, "resnext", "sgd", 0, wrong=10, images=600)
    write_outputs(folder / "predictions.csv", POSITIVE, expit(separated(4) + 2))
    write_outputs(folder / "validation.csv", POSITIVE, expit(separated(4)))
    return folder


def test_report_of_a_run_tells_of_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report([run], tmp_path / "out")
    shown = " ".join(capsys.readouterr().out.split())
    assert "From 600 validation to 600 test images" in shown
    found = read_shift(run, read_results(run) or {})
    assert isinstance(found, Shift)
    assert f"at most {found.by_threshold:+.3f} the threshold's" in shown
    assert "a bound, not a result" in shown
    assert "a bound, not a result" in (tmp_path / "out" / "leaderboard.md").read_text()
    assert (tmp_path / "out" / "figures" / "shift.png").is_file()


@pytest.mark.parametrize(
    ("label", "words"),
    [(None, "left no validation.csv"), (np.ones(600, bool), "all of one class")],
)
def test_report_says_why_there_is_none(
    label: np.ndarray | None, words: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "validation.csv").unlink()
    if label is not None:
        write_outputs(run / "validation.csv", label, np.linspace(0, 1, 600))
    report([run])
    assert words in " ".join(capsys.readouterr().out.split())
    assert set(drawn(run)) == ALWAYS


def test_a_run_with_validation_csv_has_the_figure(run: Path) -> None:
    assert set(drawn(run)) == {*ALWAYS, "shift"}


def test_a_threshold_that_is_a_probability_keeps_its_side(tmp_path: Path) -> None:
    # As a run compares it, in single precision: of two equal numbers neither is above the other.
    threshold = float(np.float32(0.3))
    write_run(tmp_path / "run", "resnext", "sgd", 0, wrong=10, images=8, threshold=threshold)
    lines = ["path,label,probability,prediction"]
    lines += [f"test/0.jpeg,NORMAL,{threshold:.9g},NORMAL", "test/1.jpeg,NORMAL,0.400000006,PNEUMONIA"]
    (tmp_path / "run" / "predictions.csv").write_text("\n".join(lines) + "\n")
    counts = count_outcomes(np.array([0, 0]), np.array([0, 1]))
    found = read_predictions(tmp_path / "run", {**(read_results(tmp_path / "run") or {}), **counts})
    assert found.predicted.tolist() == [False, True]
    assert found.positive.tolist() == [False, False]


def test_the_best_threshold_lies_among_saturated_images_too() -> None:
    margin = separated(2) + 40
    saturated = Predictions.binary(np.ones(600), POSITIVE, np.ones(600, bool), margin=margin)
    value, threshold = best_threshold(saturated)
    assert value == pytest.approx(max(balanced_accuracy_score(POSITIVE, margin > other) for other in margin))
    assert value > 0.8
    assert threshold == 1.0
