import numpy as np
import pytest
from scipy.stats import beta, binom

from pneumo.metrics import confusion
from pneumo.metrics.bootstrap import Resamples
from pneumo.metrics.confusion import draw_tables, posterior_interval
from pneumo.metrics.predictions import Predictions

FUNCTIONS = (
    confusion.accuracy,
    confusion.sensitivity,
    confusion.specificity,
    confusion.balanced_accuracy,
    confusion.f1,
    confusion.mcc,
)


def measure(table: np.ndarray) -> dict[str, float]:
    return {function.__name__: float(function(table[None])[0]) for function in FUNCTIONS}


def intervals(table: np.ndarray) -> dict[str, tuple[float, float]]:
    draws = draw_tables(table)
    return {function.__name__: posterior_interval(function, table, draws) for function in FUNCTIONS}


def test_rows_are_true_classes_and_columns_predicted_classes() -> None:
    predicted = np.array([0, 2, 1, 1, 2])
    predictions = Predictions(np.eye(3)[predicted], np.array([0, 0, 1, 2, 2]), predicted)
    assert Resamples(predictions).tables[0].tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 1]]


def test_metrics_of_a_known_matrix() -> None:
    found = measure(np.array([[6.0, 4.0], [1.0, 9.0]]))
    expected = {"accuracy": 15 / 20, "sensitivity": 0.9, "specificity": 0.6, "balanced_accuracy": 0.75}
    assert found == pytest.approx(expected | {"f1": 18 / 23, "mcc": (9 * 6 - 4 * 1) / np.sqrt(10 * 10 * 13 * 7)})


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_metrics_are_invariant_to_scale(scale: float) -> None:
    table = np.array([[6.0, 4.0, 0.0], [1.0, 9.0, 2.0], [0.0, 3.0, 5.0]])
    assert measure(table * scale) == pytest.approx(measure(table))


def test_mcc_of_a_single_predicted_class_is_zero() -> None:
    assert measure(np.array([[0.0, 4.0], [0.0, 6.0]]))["mcc"] == 0


@pytest.mark.parametrize(("hits", "images"), [(18, 20), (300, 390), (10, 10)])
def test_interval_of_one_proportion_is_the_jeffreys_interval(hits: int, images: int) -> None:
    found = intervals(np.array([[50.0, 50.0], [images - hits, hits]]))["sensitivity"]
    low, high = beta.ppf((0.025, 0.975), hits + 0.5, images - hits + 0.5)
    expected = (low, 1 if hits == images else high)
    deviation = beta.std(hits + 0.5, images - hits + 0.5)
    assert found == pytest.approx(expected, abs=0.1 * deviation)


def test_intervals_are_deterministic() -> None:
    table = np.array([[9.0, 1.0], [20.0, 280.0]])
    assert intervals(table) == intervals(table)


def test_intervals_of_a_small_class_have_nominal_coverage() -> None:
    """Sum the probabilities of all matrices whose interval contains the true value."""
    positives, negatives, sensitivity, specificity = 10, 40, 0.9, 0.8
    truth = measure(
        np.array([[specificity, 1 - specificity], [1 - sensitivity, sensitivity]]) * [[negatives], [positives]]
    )
    probability = np.outer(
        binom.pmf(np.arange(positives + 1), positives, sensitivity),
        binom.pmf(np.arange(negatives + 1), negatives, specificity),
    )
    covered = dict.fromkeys(("balanced_accuracy", "f1", "mcc"), 0.0)
    likely = np.argwhere(probability > 1e-3)
    for hits, true_negatives in likely:
        found = intervals(np.array([[true_negatives, negatives - true_negatives], [positives - hits, hits]], float))
        for name in covered:
            low, high = found[name]
            covered[name] += probability[hits, true_negatives] * (low - 1e-12 <= truth[name] <= high + 1e-12)
    for name, coverage in covered.items():
        assert 0.93 <= coverage / probability[tuple(likely.T)].sum() <= 0.97, name
