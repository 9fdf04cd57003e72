from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.special import logit

from pneumo.metrics.predictions import Predictions
from pneumo.reporting.figures.run_figures import COLUMNS, Examples, draw_batch, draw_predictions, select_examples
from pneumo.runs.results import Results

RESULTS: Results = {"model": "resnext", "optimizer": "sgd", "seed": 0, "threshold": 0.3}
RESULTS |= {f"test_{kind}_{sign}": 10 for kind in ("true", "false") for sign in ("positives", "negatives")}


def predict(probability: Sequence[float], threshold: float = 0.3) -> Predictions:
    probabilities = np.array(probability)
    return Predictions.binary(
        probabilities, np.arange(len(probabilities)) % 2 == 1, probabilities > threshold, ("NORMAL", "PNEUMONIA")
    )


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in (*figure.texts, *figure.axes[0].texts)]


def draw(predictions: Predictions, examples: Examples) -> Figure:
    return draw_predictions(predictions, examples, np.zeros((len(examples.indices), 8, 8), np.uint8), RESULTS)


def test_examples_are_right_wrong_and_uncertain() -> None:
    predictions = predict(np.random.default_rng(0).random(200).tolist())
    examples = select_examples(predictions, 0.3)
    distance = np.abs(logit(predictions.positive_probability) - logit(0.3))
    wrong = np.flatnonzero(~predictions.correct)
    assert predictions.correct[examples.right].all()
    assert examples.right.tolist() == sorted(set(examples.right.tolist()))
    assert examples.wrong.tolist() == sorted(wrong, key=lambda index: -distance[index])[:COLUMNS]
    assert examples.uncertain.tolist() == np.argsort(distance)[:COLUMNS].tolist()
    assert (examples.right_count, examples.wrong_count) == (predictions.correct.sum(), len(wrong))
    assert select_examples(predictions, 0.3).indices == examples.indices
    assert len(draw(predictions, examples).axes[0].images) == 3 * COLUMNS


@pytest.mark.parametrize(
    ("probability", "titles"),
    [
        ([0.1, 0.9] * 4, ["Correct: 5 of 8, evenly spaced", "Wrong: none"]),
        ([0.9, 0.1], ["Correct: none", "Wrong: all 2", "Least certain: all 2"]),
        ([0.9], ["Correct: none", "Wrong: all 1", "Least certain: all 1"]),
    ],
)
def test_rows_may_be_empty(probability: list[float], titles: list[str]) -> None:
    predictions = predict(probability)
    figure = draw(predictions, select_examples(predictions, 0.3))
    assert set(titles) <= set(texts(figure))


@pytest.mark.parametrize(("threshold", "nearest"), [(0.0, [0.0, 0.2, 0.4, 0.5, 0.6]), (1.0, [1.0, 0.8, 0.6, 0.5, 0.4])])
def test_uncertain_examples_are_nearest_to_an_extreme_threshold(threshold: float, nearest: list[float]) -> None:
    probabilities = [1.0, 0.0, 0.5, 0.2, 0.8, 0.6, 0.4]
    assert [
        probabilities[index] for index in select_examples(predict(probabilities, threshold), threshold).uncertain
    ] == nearest


def test_examples_of_three_classes_use_the_probability_of_the_predicted_class() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.4, 0.35, 0.25], [0.1, 0.45, 0.45], [0.02, 0.97, 0.01]])
    predictions = Predictions(
        probabilities, np.array([0, 0, 2, 2]), probabilities.argmax(1), ("NORMAL", "BACTERIAL", "VIRAL")
    )
    examples = select_examples(predictions, 0.5)
    assert (examples.right.tolist(), examples.wrong.tolist()) == ([0, 1], [3, 2])
    assert examples.uncertain.tolist() == [2, 1, 0, 3]
    found = texts(draw(predictions, examples))
    assert found.count("✗ BACTERIAL 0.97") == found.count("✓ NORMAL 0.80") == 2


def test_a_batch_is_drawn_with_its_labels() -> None:
    labels = ["NORMAL", "PNEUMONIA", "a class of a long name"]
    figure = draw_batch(labels, np.zeros((3, 8, 8), np.uint8), ["resnext", "First training batch"])
    assert {"NORMAL", "PNEUMONIA", "a class of …", "First training batch"} <= set(texts(figure))


def test_saturated_images_are_ranked_by_the_margin() -> None:
    margin = np.array([50.0, 40.0, 70.0, 60.0, 90.0, -80.0])
    predictions = Predictions.binary(
        np.round(np.array([1, 1, 1, 1, 1, 0.0])), np.arange(6) == 3, margin > 0, ("A", "B"), margin=margin
    )
    assert select_examples(predictions, 0.5).wrong.tolist() == [4, 2, 0, 1]
    assert select_examples(predictions, 0.5).uncertain.tolist() == [1, 0, 3, 2, 5]
    odds = np.array([[60.0, -61, -62], [70, -80, -71], [40, -41, -42]])
    three = Predictions(np.eye(3)[[0, 0, 0]], np.ones(3, int), np.zeros(3, int), ("A", "B", "C"), odds)
    assert select_examples(three, 0.5).wrong.tolist() == [1, 0, 2]
