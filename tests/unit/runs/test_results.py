import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.run_files import RESULTS

from pneumo.errors import ConfigError, TrainingError
from pneumo.metrics.predictions import Predictions
from pneumo.runs.prediction_files import write_predictions
from pneumo.runs.result_rules import RESULT_NAMES
from pneumo.runs.results import check_overwrite, write_results


def test_probabilities_are_bit_identical_after_a_round_trip(tmp_path: Path) -> None:
    probability = np.random.default_rng(0).random(500, dtype=np.float32)
    label = np.arange(500) % 2
    images = tuple(f"test/a,{i}.jpeg" for i in range(500))
    path = tmp_path / "predictions.csv"
    columns = probability.astype(float), label > 0, probability > 0.5
    write_predictions(path, Predictions.binary(*columns, ("NORMAL", "PNEUMONIA"), images))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "probability", "prediction"]
    assert tuple(row["path"] for row in rows) == images
    assert np.array_equal(np.array([row["probability"] for row in rows], np.float32), probability)
    assert {row["label"] for row in rows} == {row["prediction"] for row in rows} == {"NORMAL", "PNEUMONIA"}


def test_results_have_the_documented_keys_in_order_and_no_nan(tmp_path: Path) -> None:
    results = dict.fromkeys(reversed(RESULT_NAMES), 0.5)
    write_results(tmp_path / "results.json", results)
    assert list(json.loads((tmp_path / "results.json").read_text())) == list(RESULT_NAMES)
    with pytest.raises(TrainingError, match="test_auroc"):
        write_results(tmp_path / "results.json", {**results, "test_auroc": float("nan")})


def test_a_finished_run_is_only_overwritten_by_the_same_configuration(tmp_path: Path) -> None:
    check_overwrite(tmp_path, frozenset({"one"}), "data")
    write_results(tmp_path / "results.json", {**RESULTS, "config_hash": "one", "data_hash": "data"})
    check_overwrite(tmp_path, frozenset({"one"}), "data")
    check_overwrite(tmp_path, frozenset({"one", "as another version wrote it"}), "data")
    for config_hash, data_hash in (("two", "data"), ("one", "other data")):
        with pytest.raises(ConfigError, match=r"would be lost.*sweep\.name"):
            check_overwrite(tmp_path, frozenset({config_hash}), data_hash)
