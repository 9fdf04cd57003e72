import pytest
import torch

from pneumo.models.classifier import Classifier
from pneumo.models.fast_inference import Scorer
from pneumo.models.hyperparameters import PredictionOptions
from pneumo.models.ood_detector import LevelMeans, fit_ood_detector

IMAGE = torch.randint(0, 256, (5, 1, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("architecture", "classes"),
    [("pneumo/xraychestnet", 2), ("timm/tf_efficientnet_lite0", 3)],
)
def test_it_answers_as_the_checkpoint_does(architecture: str, classes: int, flip: bool) -> None:
    names = ["A", "B", "C"][:classes]
    prediction = PredictionOptions(temperature=1.7, flip_test=flip)
    classifier = Classifier(architecture, names, 64, prediction=prediction).eval()
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    with torch.inference_mode():
        probability, unlike = Scorer(classifier)(IMAGE)
        expected = classifier.probability(classifier.predict_logits(IMAGE))
    torch.testing.assert_close(probability, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(probability.sum(1), torch.ones(5))
    assert torch.equal(unlike, torch.zeros(5))  # nobody has told it what is usual
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())


def test_it_scores_how_unlike_images_are() -> None:
    classifier = Classifier("pneumo/xraychestnet", ["A", "B"], 64).eval()
    levels = LevelMeans(classifier.backbone, 64)
    random = torch.Generator().manual_seed(1)
    usual = torch.randint(100, 140, (40, 1, 64, 64), generator=random, dtype=torch.uint8)
    with torch.inference_mode():
        means = levels(usual)[1].double().numpy()
        classifier.ood_detector = fit_ood_detector(means[:20], [(means[20:], 0.01)], levels.channels)
        unlike = Scorer(classifier)(torch.cat([usual[:20], IMAGE]))[1]
    assert (unlike[:20] <= 1).all()
    assert (unlike[20:] > 1).all()
