"""A checkpoint opened for use, with PyTorch."""

from __future__ import annotations

from pathlib import Path

import torch

from pneumo.checkpoints import read_checkpoint
from pneumo.models.classifier import Classifier
from pneumo.models.scorer import Scorer
from pneumo.prediction.network import Images, Scores
from pneumo.prediction.rules import Rules


class CheckpointNetwork:
    """A checkpoint's network, on the CPU or on a GPU."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Open a checkpoint.

        Args:
            path: Of the checkpoint.
            device: PyTorch's name.

        Raises:
            ConfigError: It is none.
        """
        read_checkpoint(path)  # whose errors are for users
        self.classifier = Classifier.load_from_checkpoint(path, map_location="cpu").eval()
        self.rules = rules_of(self.classifier)
        self.device = torch.device(device)
        self.scorer = Scorer(self.classifier).to(self.device)

    def score(self, image: Images) -> Scores:
        """Score images; see `Network`."""
        with torch.inference_mode():
            probability, unlike = self.scorer(torch.from_numpy(image).to(self.device))
        return probability.float().cpu().numpy(), unlike.float().cpu().numpy()


def rules_of(classifier: Classifier) -> Rules:
    """Give the rules that a classifier's checkpoint holds."""
    known = classifier.hparams
    return Rules(
        name=known["architecture"],
        classes=tuple(classifier.classes),
        image_size=classifier.image_size,
        crop_pct=classifier.crop_pct,
        threshold=known["threshold"],
        margin=known["margin"],
        outliers=classifier.outliers is not None,
    )
