"""Checkpoints as a tested run leaves them, without a run."""

from pathlib import Path

import torch

from pneumo.models.classifier import Classifier
from pneumo.models.hyperparameters import PredictionOptions
from pneumo.models.ood_detector import LevelMeans, fit_ood_detector
from pneumo.training.checkpoints import write_checkpoint as write

SIZE = 32


def write_checkpoint(path: Path, classes: tuple[str, ...] = ("NORMAL", "PNEUMONIA"), tested: bool = True) -> Path:
    """Write the checkpoint of a small network with random weights, which crops, mirrors and has a temperature.

    Args:
        path: Where to.
        classes: Of the network.
        tested: Whether it has a margin, and tells by noise what is usual.
    """
    torch.manual_seed(0)
    prediction = PredictionOptions(temperature=0.05, margin=0.5 if tested else None, flip_test=True)
    classifier = Classifier("pneumo/xraychestnet", classes, SIZE, crop_pct=0.9, prediction=prediction).eval()
    with torch.no_grad():
        classifier.head.bias.zero_()
    checkpoint = {
        "state_dict": classifier.state_dict(),
        "hyper_parameters": dict(classifier.hparams),
        "pytorch-lightning_version": "2.6.0",
    }
    if tested:
        noise = torch.randint(0, 256, (40, 1, SIZE, SIZE), dtype=torch.uint8)
        levels = LevelMeans(classifier.backbone, SIZE)
        with torch.inference_mode():
            means = levels(noise)[1].double().numpy()
        checkpoint["outliers"] = fit_ood_detector(means[:20], [(means[20:], 0.01)], levels.channels)._asdict()
    write(checkpoint, path)
    return path
