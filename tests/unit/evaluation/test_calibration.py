import numpy as np
import pytest

from pneumo.evaluation.answers import Answers
from pneumo.evaluation.calibration import bin_of, calibration_curve
from pneumo.evaluation.intervals import wilson


def test_a_curve_of_a_known_case() -> None:
    # Ten images called 0.9, seven of them positive; ten called 0.1, none of them; one called 1.
    probability = np.array([0.9] * 10 + [0.1] * 10 + [1.0])
    positive = np.array([True] * 7 + [False] * 13 + [True])
    low, high, certain = calibration_curve(Answers(probability, positive, probability > 0.5))
    assert (low.images, low.probability, low.share) == (10, pytest.approx(0.1), 0)
    assert (high.images, high.probability, high.share) == (10, pytest.approx(0.9), 0.7)
    assert (high.low, high.high) == wilson(7, 10)
    assert (certain.images, certain.probability) == (1, 1)


def test_a_lower_edge_belongs_to_its_bin() -> None:
    assert bin_of(np.array([0, 1 / 15, 0.0666, 0.5, 14 / 15, 0.99, 1])).tolist() == [0, 1, 0, 7, 14, 14, 15]
