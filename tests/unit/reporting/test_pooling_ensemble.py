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
def three(tmp_path: Path) -> Path:
    """A sweep of three seeds whose errors are independent."""
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


def test_an_ensemble_answers_with_the_mean_and_is_tested_anew(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report([three], ensemble=True)
    ensemble([three], three / "alone")
    assert (three / "alone" / "ensemble" / "ensemble.json").read_text() == (
        three / "ensemble" / "ensemble.json"
    ).read_text()
    assert not (three / "alone" / "leaderboard.csv").exists()
    found = json.loads((three / "ensemble" / "ensemble.json").read_text())
    assert [Path(member).name for member in found["members"]] == [f"resnext-adam-s{seed}" for seed in range(3)]
    each = [probabilities(three / f"resnext-adam-s{seed}" / "predictions.csv") for seed in range(3)]
    order = sorted(range(624), key=lambda i: f"predictions/{i}.jpeg")
    mean, positive = np.mean(each, axis=0)[order], POSITIVE[order]
    np.testing.assert_allclose(probabilities(three / "ensemble" / "predictions.csv"), mean, atol=1e-7)
    assert found["test_auroc"] == pytest.approx(roc_auc_score(positive, mean))
    assert found["test_auroc"] > max(roc_auc_score(POSITIVE, one) for one in each)
    assert found["test_accuracy"] == pytest.approx(accuracy_score(positive, mean > 0.5))
    assert found["test_accuracy_ci_low"] < found["test_accuracy"] < found["test_accuracy_ci_high"]
    viral = np.array([int(f"predictions/{i}.jpeg".split("/")[1][:-5]) % 2 == 1 for i in order])
    assert found["test_sensitivity_viral"] == pytest.approx((mean > 0.5)[viral & positive].mean())
    assert "Ensemble of 3 runs, 624 test images" in capsys.readouterr().out


def test_runs_that_do_not_go_together_are_refused(three: Path) -> None:
    write_outputs(three / "resnext-adam-s1" / "predictions.csv", ~POSITIVE, expit(POSITIVE - 0.5))
    with pytest.raises(ConfigError, match=r"resnext-adam-s1 .*other images"):
        combine(collect([three]))
    with pytest.raises(ConfigError, match="two runs at least"):
        combine(collect([three / "resnext-adam-s0"]))


def test_collapsed_and_three_class_runs_are_left_out(three: Path) -> None:
    for seed, change in ((0, {"collapsed": True}), (1, {"task": "subtype"})):
        path = three / f"resnext-adam-s{seed}" / "results.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError, match="of 3 here 1"):
        combine(collect([three]))


def test_the_log_odds_of_a_mean_probability_do_not_saturate() -> None:
    margins = np.random.default_rng(0).normal(0, 5, (3, 100))
    np.testing.assert_allclose(log_odds(margins), logit(expit(margins).mean(axis=0)), atol=1e-9)
    # 1 - sigmoid(m) is exp(-m) far out, so that the mean of two has the smaller margin and log 2 more.
    np.testing.assert_allclose(log_odds(np.array([[60.0, -70.0], [80.0, -90.0]])), [60 + np.log(2), -70 - np.log(2)])


def test_an_ensemble_of_saturated_runs_ranks_by_its_margin(three: Path) -> None:
    margins = [40 + 3 * POSITIVE + np.random.default_rng(seed).normal(0, 2, 624) for seed in range(3)]
    for seed, margin in enumerate(margins):
        write_outputs(three / f"resnext-adam-s{seed}" / "predictions.csv", POSITIVE, expit(margin), margin)
    found = combine(collect([three]))
    order = sorted(range(624), key=lambda i: f"predictions/{i}.jpeg")
    mean = -np.log(np.mean([np.exp(-margin[order]) for margin in margins], axis=0))  # as far out as this
    assert np.unique(found.answers.positive_probability).tolist() == [1.0]
    assert found.figures["test_auroc"] == pytest.approx(roc_auc_score(POSITIVE[order], mean))
    assert float(found.figures["test_auroc_ci_low"]) > 0.8
    write_outputs(three / "resnext-adam-s0" / "predictions.csv", POSITIVE, expit(margins[0]))
    assert combine(collect([three])).answers.margin is None  # one run of an earlier version: by the probability
