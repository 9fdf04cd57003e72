from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.special import logit

from pneumo.metrics.predictions import Predictions
from pneumo.reporting.figures.run_figures import ACROSS, Chosen, choose, draw_batch, draw_predictions
from pneumo.runs.results import Results

RESULTS: Results = {"model": "resnext", "optimizer": "sgd", "seed": 0, "threshold": 0.3}
RESULTS |= {f"test_{kind}_{sign}": 10 for kind in ("true", "false") for sign in ("positives", "negatives")}


def answers(probability: Sequence[float], threshold: float = 0.3) -> Predictions:
    shares = np.array(probability)
    return Predictions.binary(shares, np.arange(len(shares)) % 2 == 1, shares > threshold, ("NORMAL", "PNEUMONIA"))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in (*figure.texts, *figure.axes[0].texts)]


def draw(given: Predictions, chosen: Chosen) -> Figure:
    return draw_predictions(given, chosen, np.zeros((len(chosen.places), 8, 8), np.uint8), RESULTS)


def test_films_are_what_their_rows_say() -> None:
    given = answers(np.random.default_rng(0).random(200).tolist())
    chosen = choose(given, 0.3)
    distance = np.abs(logit(given.positive_probability) - logit(0.3))
    wrong = np.flatnonzero(~given.right)
    assert given.right[chosen.right].all()
    assert chosen.right.tolist() == sorted(set(chosen.right.tolist()))
    assert chosen.wrong.tolist() == sorted(wrong, key=lambda place: -distance[place])[:ACROSS]
    assert chosen.uncertain.tolist() == np.argsort(distance)[:ACROSS].tolist()
    assert (chosen.rights, chosen.wrongs) == (given.right.sum(), len(wrong))
    assert choose(given, 0.3).places == chosen.places
    assert len(draw(given, chosen).axes[0].images) == 3 * ACROSS


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        ([0.1, 0.9] * 4, ["Right: 5 of 8, spread evenly over the list", "Wrong: none"]),
        ([0.9, 0.1], ["Right: none", "Wrong: all 2", "Least certain: all 2"]),
        ([0.9], ["Right: none", "Wrong: all 1", "Least certain: all 1"]),
    ],
)
def test_rows_may_be_empty(probability: list[float], words: list[str]) -> None:
    given = answers(probability)
    figure = draw(given, choose(given, 0.3))
    assert set(words) <= set(texts(figure))


@pytest.mark.parametrize(("threshold", "nearest"), [(0.0, [0.0, 0.2, 0.4, 0.5, 0.6]), (1.0, [1.0, 0.8, 0.6, 0.5, 0.4])])
def test_a_threshold_at_the_end_has_nearest_answers_too(threshold: float, nearest: list[float]) -> None:
    shares = [1.0, 0.0, 0.5, 0.2, 0.8, 0.6, 0.4]
    assert [shares[place] for place in choose(answers(shares, threshold), threshold).uncertain] == nearest


def test_of_three_classes_the_closest_calls_are_uncertain_and_the_called_probability_is_shown() -> None:
    shares = np.array([[0.8, 0.1, 0.1], [0.4, 0.35, 0.25], [0.1, 0.45, 0.45], [0.02, 0.97, 0.01]])
    given = Predictions(shares, np.array([0, 0, 2, 2]), shares.argmax(1), ("NORMAL", "BACTERIAL", "VIRAL"))
    chosen = choose(given, 0.5)
    assert (chosen.right.tolist(), chosen.wrong.tolist()) == ([0, 1], [3, 2])
    assert chosen.uncertain.tolist() == [2, 1, 0, 3]
    found = texts(draw(given, chosen))
    assert found.count("✗ BACTERIAL 0.97") == found.count("✓ NORMAL 0.80") == 2


def test_a_batch_shows_its_labels() -> None:
    labels = ["NORMAL", "PNEUMONIA", "a class of a long name"]
    figure = draw_batch(labels, np.zeros((3, 8, 8), np.uint8), ["resnext", "First training batch"])
    assert {"NORMAL", "PNEUMONIA", "a class of …", "First training batch"} <= set(texts(figure))


def test_the_surest_mistakes_are_found_among_saturated_images() -> None:
    margin = np.array([50.0, 40.0, 70.0, 60.0, 90.0, -80.0])
    given = Predictions.binary(
        np.round(np.array([1, 1, 1, 1, 1, 0.0])), np.arange(6) == 3, margin > 0, ("A", "B"), margin=margin
    )
    assert choose(given, 0.5).wrong.tolist() == [4, 2, 0, 1]
    assert choose(given, 0.5).uncertain.tolist() == [1, 0, 3, 2, 5]
    odds = np.array([[60.0, -61, -62], [70, -80, -71], [40, -41, -42]])
    three = Predictions(np.eye(3)[[0, 0, 0]], np.ones(3, int), np.zeros(3, int), ("A", "B", "C"), odds)
    assert choose(three, 0.5).wrong.tolist() == [1, 0, 2]
