from pathlib import Path

import pytest
from helpers.labelled_site import CLASSES, SUBTYPES, BrightnessNetwork, write_site

from pneumo.errors import ConfigError
from pneumo.inference.evaluate.evaluation import Evaluation
from pneumo.inference.predictor import Predictor


def test_a_network_does_not_differ_from_itself(site: Path, model: Predictor) -> None:
    comparison = model.evaluate(site, against=model).comparison
    assert comparison is not None
    assert [paired.difference.value for paired in comparison.differences.values()] == [0] * 4
    assert [paired.holm for paired in comparison.differences.values()] == [1] * 4


def test_swapped_networks_have_the_opposite_difference(site: Path, model: Predictor, evaluation: Evaluation) -> None:
    other = Predictor(BrightnessNetwork(slope=-1 / 40))
    swapped = other.evaluate(site, against=model).comparison
    assert swapped is not None
    assert evaluation.comparison is not None
    for name, paired in evaluation.comparison.differences.items():
        assert swapped.differences[name].difference.value == pytest.approx(-paired.difference.value)
        assert swapped.differences[name].difference.p == pytest.approx(paired.difference.p)
    assert swapped.other.metrics == evaluation.metrics


def test_networks_with_other_classes_are_errors(tmp_path: Path, model: Predictor) -> None:
    table = write_site(tmp_path, images=20)
    for classes in (SUBTYPES, CLASSES[::-1]):
        with pytest.raises(ConfigError, match="--against"):
            model.evaluate(table, against=Predictor(BrightnessNetwork(classes)))


def test_rows_with_more_than_two_classes_compare_positive_with_negative_images(tmp_path: Path) -> None:
    table = write_site(tmp_path, images=40, classes=SUBTYPES)
    one, other = Predictor(BrightnessNetwork(SUBTYPES)), Predictor(BrightnessNetwork(SUBTYPES, slope=-1 / 40))
    found = one.evaluate(table, against=other)
    assert found.comparison is not None
    for name, paired in found.comparison.differences.items():
        values = [part.main_metrics[name].value for part in (found.overall, found.comparison.other)]
        assert paired.difference.value == pytest.approx(values[0] - values[1]), name
