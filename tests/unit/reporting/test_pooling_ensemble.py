import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.run_files import write_outputs, write_run
from scipy.special import expit, logit
from sklearn.metrics import accuracy_score, roc_auc_score

from pneumo.cli.commands import ensemble, report
from pneumo.errors import ConfigError
from pneumo.metrics.predictions import log_odds
from pneumo.reporting.pooling import combine
from pneumo.runs.collection import collect

POSITIVE = np.arange(624) % 8 >= 3


@pytest.fixture
def three_seeds(tmp_path: Path) -> Path:
    """Write a sweep of three seeds with independent errors."""
    for seed in range(3):
        folder = tmp_path / "sweep" / f"resnext-adam-s{seed}"
        write_run(folder, "resnext", "adam", seed, wrong=30, task="pneumonia", threshold=0.5)
        noise = np.random.default_rng(seed).normal(0, 1.5, 624)
        write_outputs(folder / "predictions.csv", POSITIVE, expit(2 * POSITIVE - 1 + noise))
        rows = [f"predictions/{i}.jpeg,test,X,{'viral' if i % 2 else 'bacterial'},person{i}" for i in range(624)]
        (folder / "splits.csv").write_text("\n".join(["path,split,class,subtype,patient", *rows]))
    return tmp_path / "sweep"


def probabilities(path: Path) -> np.ndarray:
    with path.open(newline="") as file:
        return np.array([float(row["probability"]) for row in csv.DictReader(file)])


def test_an_ensemble_averages_probabilities_and_is_evaluated_on_the_test_images(
    three_seeds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report([three_seeds], ensemble=True)
    ensemble([three_seeds], three_seeds / "alone")
    assert (three_seeds / "alone" / "ensemble" / "ensemble.json").read_text() == (
        three_seeds / "ensemble" / "ensemble.json"
    ).read_text()
    assert not (three_seeds / "alone" / "leaderboard.csv").exists()
    content = json.loads((three_seeds / "ensemble" / "ensemble.json").read_text())
    assert [Path(path).name for path in content["members"]] == [f"resnext-adam-s{seed}" for seed in range(3)]
    members = [probabilities(three_seeds / f"resnext-adam-s{seed}" / "predictions.csv") for seed in range(3)]
    order = sorted(range(624), key=lambda i: f"predictions/{i}.jpeg")
    mean, positive = np.mean(members, axis=0)[order], POSITIVE[order]
    np.testing.assert_allclose(probabilities(three_seeds / "ensemble" / "predictions.csv"), mean, atol=1e-7)
    assert content["test_auroc"] == pytest.approx(roc_auc_score(positive, mean))
    assert content["test_auroc"] > max(roc_auc_score(POSITIVE, member) for member in members)
    assert content["test_accuracy"] == pytest.approx(accuracy_score(positive, mean > 0.5))
    assert content["test_accuracy_ci_low"] < content["test_accuracy"] < content["test_accuracy_ci_high"]
    viral = np.array([int(f"predictions/{i}.jpeg".split("/")[1][:-5]) % 2 == 1 for i in order])
    assert content["test_sensitivity_viral"] == pytest.approx((mean > 0.5)[viral & positive].mean())
    assert "Ensemble of 3 runs, 624 test images" in capsys.readouterr().out


def test_an_ensemble_requires_the_same_test_images_and_two_runs(three_seeds: Path) -> None:
    write_outputs(three_seeds / "resnext-adam-s1" / "predictions.csv", ~POSITIVE, expit(POSITIVE - 0.5))
    with pytest.raises(ConfigError, match=r"resnext-adam-s1 .*other images"):
        combine(collect([three_seeds]))
    with pytest.raises(ConfigError, match="at least two runs"):
        combine(collect([three_seeds / "resnext-adam-s0"]))


def test_collapsed_and_three_class_runs_are_left_out(three_seeds: Path) -> None:
    for seed, change in ((0, {"collapsed": True}), (1, {"task": "subtype"})):
        path = three_seeds / f"resnext-adam-s{seed}" / "results.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError, match="only 1 of these 3"):
        combine(collect([three_seeds]))


def test_log_odds_of_a_mean_probability_do_not_saturate() -> None:
    margins = np.random.default_rng(0).normal(0, 5, (3, 100))
    np.testing.assert_allclose(log_odds(margins), logit(expit(margins).mean(axis=0)), atol=1e-9)
    # For large m, 1 - sigmoid(m) is exp(-m), so the log odds of the mean are the smaller margin plus log 2.
    np.testing.assert_allclose(log_odds(np.array([[60.0, -70.0], [80.0, -90.0]])), [60 + np.log(2), -70 - np.log(2)])


def test_an_ensemble_of_saturated_runs_ranks_by_the_margin(three_seeds: Path) -> None:
    margins = [40 + 3 * POSITIVE + np.random.default_rng(seed).normal(0, 2, 624) for seed in range(3)]
    for seed, margin in enumerate(margins):
        write_outputs(three_seeds / f"resnext-adam-s{seed}" / "predictions.csv", POSITIVE, expit(margin), margin)
    found = combine(collect([three_seeds]))
    order = sorted(range(624), key=lambda i: f"predictions/{i}.jpeg")
    mean = -np.log(np.mean([np.exp(-margin[order]) for margin in margins], axis=0))  # valid for large margins
    assert np.unique(found.predictions.positive_probability).tolist() == [1.0]
    assert found.metrics["test_auroc"] == pytest.approx(roc_auc_score(POSITIVE[order], mean))
    assert float(found.metrics["test_auroc_ci_low"]) > 0.8
    write_outputs(three_seeds / "resnext-adam-s0" / "predictions.csv", POSITIVE, expit(margins[0]))
    assert combine(collect([three_seeds])).predictions.margin is None  # one run of an earlier version has no margins
