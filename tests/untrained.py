"""Checkpoints of networks that nobody has trained, with all that a tested one holds."""

from pathlib import Path

import torch
from lightning import Trainer
from torch import Tensor

from pneumo.checkpoints import write_decision
from pneumo.models.classifier import Classifier
from pneumo.models.levels import LevelMeans
from pneumo.models.outliers import fit_outliers


def films(count: int, size: int) -> Tensor:
    """Give smooth grey pictures, (count, 1, size, size) uint8."""
    noise = torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(count))
    return (255 * torch.nn.functional.interpolate(noise, size, mode="bilinear")).to(torch.uint8)


def write_untrained(path: Path, architecture: str, size: int, flip: bool = True, classes: int = 2) -> Path:
    """Write a checkpoint whose network has random weights."""
    torch.manual_seed(0)
    names = ["NORMAL", "PNEUMONIA"] if classes == 2 else ["NORMAL", "BACTERIAL", "VIRAL"]
    classifier = Classifier(architecture, names, size, crop_pct=0.875, temperature=0.7, flip_test=flip)
    for module in classifier.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        classifier.backbone(films(48, size))  # normalisations learn what else vanishes in a deep network
    classifier.eval()
    levels = LevelMeans(classifier.backbone, size)
    with torch.no_grad():
        features, found = levels(films(48, size))
        logits = features @ classifier.head.weight.T
        spread = 2 / (logits[:, 1] - logits[:, 0]).std()  # random weights answer all films alike
        classifier.head.weight *= spread
        classifier.head.bias.copy_(-spread * logits.mean(0))
    means = found.double().numpy()
    outliers = fit_outliers(means[:32], [(means[32:], 0.1)], levels.channels)
    classifier.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    classifier.trainer.strategy.connect(classifier)
    classifier.trainer.save_checkpoint(path)
    write_decision(path, {"threshold": 0.4, "margin": 0.3}, outliers._asdict())
    return path
