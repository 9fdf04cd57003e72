"""Fixtures: a network for a labelled set, and its evaluation."""

from pathlib import Path

import pytest
from helpers.labelled_site import BrightnessNetwork

from pneumo.inference.evaluate.evaluation import Evaluation
from pneumo.inference.predictor import Predictor


@pytest.fixture(scope="session")
def model() -> Predictor:
    return Predictor(BrightnessNetwork())


@pytest.fixture(scope="session")
def evaluation(site: Path, model: Predictor) -> Evaluation:
    """An evaluation with subgroups, stated prevalences and another network."""
    other = Predictor(BrightnessNetwork(slope=-1 / 40))
    return model.evaluate(site, by=("view", "age"), prevalences=(0.05, 0.3), against=other)
