import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.run_files import RESULTS as FINISHED
from scipy.special import expit, log_softmax
from sklearn.metrics import roc_auc_score

from pneumo.errors import ConfigError
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.summary import count_outcomes, summarise
from pneumo.runs.prediction_files import read_predictions, read_table, write_predictions

HEADER = "path,label,probability,prediction"
TWO, THREE = ("NORMAL", "PNEUMONIA"), ("NORMAL", "logit_margin_X", "VIRAL")  # a class named like a column
LABEL = np.arange(200) % 2
MARGIN = (np.random.default_rng(0).normal(0, 12, 200) + 25 * LABEL).astype(np.float32)
LOGITS = np.random.default_rng(1).normal(0, 60, (300, 3)) + 90 * np.eye(3)[np.arange(300) % 3]
RESULTS = {**FINISHED, **count_outcomes(LABEL, (expit(MARGIN) > 0.5).astype(int))}  # at a threshold of 0.5
PATHS = tuple(f"test/{i}.jpeg" for i in range(200))


def columns(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return next(csv.reader(file))


def write_binary(path: Path, margin: np.ndarray | None) -> None:
    probability = expit(MARGIN).astype(np.float32).astype(float)
    write_predictions(path, Predictions.binary(probability, LABEL > 0, probability > 0.5, TWO, PATHS, margin))


def three_class_predictions() -> Predictions:
    """Return predictions of three classes; most of the float32 probabilities are rounded to 0 or 1."""
    logs = log_softmax(LOGITS, 1)
    odds = np.stack([logs[:, k] - np.logaddexp(*np.delete(logs, k, 1).T) for k in range(3)], 1)
    label, subtypes = np.arange(300) % 3, ("none", "bacterial", "viral") * 100
    paths = tuple(f"test/{i}.jpeg" for i in range(300))
    probability = np.exp(logs).astype(np.float32).astype(float)
    return Predictions(probability, label, LOGITS.argmax(1), THREE, odds, paths, subtypes=subtypes)


def test_margins_survive_a_round_trip_and_determine_the_ranking(tmp_path: Path) -> None:
    write_binary(tmp_path / "predictions.csv", MARGIN)
    assert columns(tmp_path / "predictions.csv") == ["path", "label", "probability", "prediction", "logit_margin"]
    found = read_predictions(tmp_path, RESULTS)
    assert found.margin is not None
    assert np.array_equal(found.margin.astype(np.float32), MARGIN)
    assert found.classes == ("NORMAL", "PNEUMONIA")
    assert roc_auc_score(found.positive, found.positive_probability) < roc_auc_score(found.positive, found.score) - 1e-3


def test_without_margins_the_probability_determines_the_ranking(tmp_path: Path) -> None:
    write_binary(tmp_path / "predictions.csv", None)
    assert columns(tmp_path / "predictions.csv") == ["path", "label", "probability", "prediction"]
    found = read_predictions(tmp_path, RESULTS)
    assert found.margin is None
    assert np.array_equal(found.score, found.positive_probability)


@pytest.mark.parametrize("margins", [True, False])
def test_three_classes_keep_their_columns_regardless_of_their_names(margins: bool, tmp_path: Path) -> None:
    given, path = three_class_predictions(), tmp_path / "predictions.csv"
    assert given.odds is not None
    write_predictions(path, given if margins else replace(given, odds=None))
    assert columns(path)[4:7] == list(THREE)
    assert columns(path)[7:] == ([f"logit_margin_{name}" for name in THREE] if margins else [])
    results = {**RESULTS, **count_outcomes(given.label, given.predicted), "task": "subtype"}
    found = read_predictions(tmp_path, results)
    assert found.classes == THREE
    assert np.array_equal(found.probability.astype(np.float32), given.probability)
    one_vs_rest = found.one_vs_rest["VIRAL"]
    if margins:
        np.testing.assert_allclose(found.score, -given.odds[:, 0], rtol=1e-8)
        np.testing.assert_allclose(one_vs_rest.score, given.odds[:, 2], rtol=1e-8)
    else:
        assert found.odds is found.margin is one_vs_rest.margin is None


def test_metrics_of_three_classes_rank_by_the_margins() -> None:
    predictions = replace(three_class_predictions(), classes=("NORMAL", "BACTERIAL", "VIRAL"))
    with_odds, without_odds = (summarise(given) for given in (predictions, replace(predictions, odds=None)))
    label, logs = predictions.label, log_softmax(LOGITS, 1)
    pneumonia = label > 0
    expected = roc_auc_score(label[pneumonia] == 2, logs[pneumonia, 2] - logs[pneumonia, 1])
    assert with_odds["test_auroc_bacterial_viral"] == pytest.approx(expected)
    assert float(without_odds["test_auroc_bacterial_viral"]) < expected - 1e-3
    assert float(with_odds["test_auroc_ci_high"]) > float(without_odds["test_auroc_ci_high"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,label,probability,prediction\n", "has no images"),
        ("", "has no images"),
        ("path,label,probability,prediction\na,NORMAL,nan,NORMAL\n", "not finite"),
        ("path,label,probability,prediction,logit_margin\na,NORMAL,0.5,NORMAL,inf\n", "not finite"),
        ("path,label,probability,prediction\na,NORMAL\n", "line 2 does not have a value"),
        ("path,label,probability,prediction\na,A,0.5,A\nb,A,0.5,A,7\n", "line 3 does not have a value"),
        ("path,label,probability,prediction,A,B,C\na,A,0.5,D,0.5,0.25,0.25\n", "no column for the class D"),
        (f"{HEADER}\na,A,1.5,A\n", "outside 0 to 1"),
        (f"{HEADER}\na,A,-0.5,A\n", "outside 0 to 1"),
        (f"{HEADER}\na,A,x,A\n", "line 2 has text"),
        (f"{HEADER}\na,A,0.5,A\na,A,0.5,A\n", "a duplicate image"),
        (f"{HEADER}\na,,0.5,A\n", "without a path, label or prediction"),
        (f"{HEADER}\na,A,0.5,A\nb,B,0.5,C\n", "3 classes, but no columns"),
        (f"{HEADER},logit_margim\na,A,0.5,A,0\n", "its columns must be"),
        ("a,A,0.5,A\nb,A,0.5,A\n", "its columns must be"),
        (f"{HEADER},logit_margin\na,A,0.5,A,3\n", "do not match the probabilities"),
        (f"{HEADER},A,B,C\na,A,0.5,A,0.5,0.25,0.125\n", "sum is not 1"),
        (f"{HEADER}\na\0,A,0.5,A\n", "null bytes"),
        (f"{HEADER}\n{'a' * 200_000},A,0.5,A\n", "not valid CSV: field larger"),
        (f'{HEADER}\n"a,A,0.5,A\n', "not valid CSV: unexpected end"),
        ("\ud8ff", "not UTF-8"),
    ],
)
def test_an_invalid_file_raises_an_error_with_its_path(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ConfigError, match=reason) as error:
        read_table(path)
    assert str(path) in str(error.value)


def test_a_run_with_three_classes_requires_their_columns(tmp_path: Path) -> None:
    write_binary(tmp_path / "predictions.csv", None)
    with pytest.raises(ConfigError, match="no columns for classes"):
        read_predictions(tmp_path, {**RESULTS, "task": "subtype"})


def test_a_missing_file_raises_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Restore the file"):
        read_predictions(tmp_path, RESULTS)


def test_predictions_that_contradict_the_results_raise_an_error(tmp_path: Path) -> None:
    write_binary(tmp_path / "predictions.csv", MARGIN)
    for other, reason in (
        ({"test_true_positives": 7}, "test_true_positives"),
        ({"threshold": 0.001}, "threshold 0.001"),
    ):
        with pytest.raises(ConfigError, match=reason):
            read_predictions(tmp_path, {**RESULTS, **other})


@pytest.mark.parametrize("classes", [2, 3])
def test_the_columns_of_a_table_follow_the_others(classes: int, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    if classes == 2:
        write_binary(path, MARGIN)
        margin = MARGIN.astype(float)
        predictions = replace(read_predictions(tmp_path, RESULTS), odds=np.stack([-margin, margin], 1))
    else:
        predictions = three_class_predictions()
    write_predictions(path, predictions)
    before, count = path.read_text().splitlines(), len(predictions.paths)
    extra = {"site": ("A", "") * (count // 2), "age": tuple(map(str, range(count))), "logit": ("=1+1",) * count}
    write_predictions(path, predictions, extra)
    after = path.read_text().splitlines()
    assert all(new.startswith(f"{old},") for old, new in zip(before, after, strict=True))
    assert columns(path)[-3:] == ["site", "age", "logit"]
    table = read_table(path)
    assert table.extra == extra
    assert table.margins.shape == (count, 1 if classes == 2 else 3)
    if classes == 2:
        assert np.array_equal(read_predictions(tmp_path, RESULTS).predicted, predictions.predicted)
