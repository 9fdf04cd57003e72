from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import SIZE, smooth_images
from helpers.ensembles import write_members
from scipy.special import expit, logit

from pneumo.models.classifier import Classifier
from pneumo.models.ensemble import EnsembleModule
from pneumo.models.fast_inference import InferenceModule


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[InferenceModule]:
    paths = write_members(tmp_path_factory.mktemp("runs"))
    return [InferenceModule(Classifier.load_from_checkpoint(path).eval()) for path in paths]


def test_probabilities_and_ood_scores_are_means(members: list[InferenceModule]) -> None:
    images = smooth_images(9, SIZE)
    parts = [member(images) for member in members]
    outputs = EnsembleModule(members)(images)
    assert [output.dtype for output in outputs] == [torch.float32] * 2
    assert [tuple(output.shape) for output in outputs] == [(9, 2), (9,)]
    for output, first, second in zip(outputs, *parts, strict=True):
        assert float((first - second).abs().max()) > 0.1
        np.testing.assert_allclose(output, (first.double() + second.double()) / 2, rtol=1e-6, atol=1e-7)


def test_temperature_and_intercept_change_the_log_odds_of_the_mean(members: list[InferenceModule]) -> None:
    images = smooth_images(9, SIZE)
    mean, adapted = (
        module(images)[0].double() for module in (EnsembleModule(members), EnsembleModule(members, 2.5, 0.7))
    )
    np.testing.assert_allclose(adapted[:, 1], expit(logit(mean[:, 1].numpy()) / 2.5 + 0.7), atol=1e-6)
    np.testing.assert_allclose(adapted.sum(1), 1, atol=1e-6)


def test_saturated_probabilities_stay_finite(members: list[InferenceModule]) -> None:
    certain = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.zeros(2)
    probability = EnsembleModule(members, 0.5, 1.0).combine([certain, certain])[0]
    assert probability.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_ood_scores_are_zero_if_a_member_has_no_detector(tmp_path: Path) -> None:
    first, second = (Classifier.load_from_checkpoint(path).eval() for path in write_members(tmp_path))
    second.ood_detector = None
    module = EnsembleModule([InferenceModule(first), InferenceModule(second)])
    assert module(smooth_images(3, SIZE))[1].tolist() == [0.0] * 3
