import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.labelled_site import CLASSES, SUBTYPES, THRESHOLD, BrightnessNetwork

from pneumo.errors import ConfigError
from pneumo.inference.evaluate.reference import Reference, compare_with_reference, find_reference
from pneumo.inference.predictor import Predictor, load_model
from pneumo.metrics.definitions import estimates
from pneumo.metrics.predictions import Predictions
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.checkpoint_writer import save_checkpoint
from pneumo.reporting.generalization import GeneralizationGap, describe_gap


def draw_predictions(count: int, shift: float, seed: int, threshold: float = THRESHOLD) -> Predictions:
    generator = np.random.default_rng(seed)
    positive = generator.random(count) < 0.5
    margin = generator.normal(0, 1, count) + 2 * positive + shift
    probability = 1 / (1 + np.exp(-margin))
    return Predictions.binary(probability, positive, probability > threshold, ("NORMAL", "PNEUMONIA"), (), margin)


def test_the_checkpoint_and_its_run_hold_the_same_internal_test(finished: Path, tmp_path: Path) -> None:
    best = finished / "checkpoints" / "best.ckpt"
    of_run = find_reference(load_model(best, "cpu"), None)
    shutil.copy(best, tmp_path / "best.ckpt")
    stored = find_reference(load_model(tmp_path / "best.ckpt", "cpu"), None)
    given = find_reference(load_model(tmp_path / "best.ckpt", "cpu"), finished)
    assert isinstance(of_run, Reference)
    assert isinstance(stored, Reference)
    assert isinstance(given, Reference)
    assert (of_run.results is None, stored.results is None) == (False, True)
    for name, estimate in estimates(stored.predictions).items():
        for other in (of_run, given):
            assert estimates(other.predictions)[name] == pytest.approx(estimate, abs=1e-4), name


def test_reasons_for_a_missing_internal_test() -> None:
    assert "two classes" in str(find_reference(Predictor(BrightnessNetwork(SUBTYPES)), None))
    missing = find_reference(Predictor(BrightnessNetwork()), None)
    assert "--run" in str(missing)
    external = draw_predictions(50, 0, 0)
    assert compare_with_reference(missing, external, THRESHOLD) == missing
    one_class = external.take(np.flatnonzero(external.positive))
    reference = Reference(draw_predictions(50, 0, 1), THRESHOLD, "here")
    assert "external images are all of one class" in str(compare_with_reference(reference, one_class, THRESHOLD))


def test_a_run_with_other_classes_is_an_error(finished: Path) -> None:
    with pytest.raises(ConfigError, match="--run"):
        find_reference(Predictor(BrightnessNetwork(("A", "B"))), finished)


def test_the_run_of_another_network_is_an_error(finished: Path, tmp_path: Path) -> None:
    best = read_checkpoint(finished / "checkpoints" / "best.ckpt")
    margin = best["internal_test"]["margin"]
    calibrated, other = tmp_path / "calibrated.ckpt", tmp_path / "other.ckpt"
    save_checkpoint({**best, "internal_test": {**best["internal_test"], "margin": 2 * margin + 1}}, calibrated)
    save_checkpoint({**best, "internal_test": {**best["internal_test"], "margin": -margin}}, other)
    assert isinstance(find_reference(load_model(calibrated, "cpu"), finished), Reference)
    with pytest.raises(ConfigError, match="--run"):
        find_reference(load_model(other, "cpu"), finished)


def test_the_run_of_a_checkpoint_without_internal_test_is_found_by_the_weights(finished: Path, tmp_path: Path) -> None:
    best = read_checkpoint(finished / "checkpoints" / "best.ckpt")
    earlier = {name: value for name, value in best.items() if name != "internal_test"}
    same, other = tmp_path / "same.ckpt", tmp_path / "other.ckpt"
    save_checkpoint(earlier, same)
    name, tensor = next((name, tensor) for name, tensor in best["state_dict"].items() if tensor.is_floating_point())
    save_checkpoint({**earlier, "state_dict": {**best["state_dict"], name: tensor + 1}}, other)
    found = find_reference(load_model(same, "cpu"), finished)
    assert isinstance(found, Reference)
    assert found.unverified_run is None
    with pytest.raises(ConfigError, match=r"best\.ckpt, whose weights differ"):
        find_reference(load_model(other, "cpu"), finished)


def test_the_run_of_a_network_without_weights_is_not_verified(finished: Path) -> None:
    found = find_reference(Predictor(BrightnessNetwork()), finished)
    assert isinstance(found, Reference)
    assert found.unverified_run == finished.name


def test_a_shifted_score_loses_by_the_threshold_and_noise_by_the_ranking() -> None:
    internal = draw_predictions(2000, -1.4, 0)  # its best threshold is the stored one
    shifted = draw_predictions(2000, -3.4, 1)
    gap = compare_with_reference(Reference(internal, THRESHOLD, "here"), shifted, THRESHOLD)
    assert isinstance(gap, GeneralizationGap)
    drop = gap.drop["balanced_accuracy"].value
    assert drop == pytest.approx(gap.ranking_drop + gap.threshold_drop)
    assert gap.threshold_drop > 0.15
    assert abs(gap.drop["auroc"].value) < 0.03
    assert "Internal test and external images have the same threshold" in describe_gap(gap)


def test_different_thresholds_are_stated() -> None:
    reference = Reference(draw_predictions(100, 0, 0, 0.7), 0.7, "here")
    gap = compare_with_reference(reference, draw_predictions(100, 0, 1), THRESHOLD)
    assert isinstance(gap, GeneralizationGap)
    assert "0.700 for internal test and 0.400 for external images" in describe_gap(gap)
    assert gap.test.classes == CLASSES
