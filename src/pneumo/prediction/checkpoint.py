"""A checkpoint opened for use, with PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pneumo.errors import ConfigError, HardwareError
from pneumo.hardware import keep_freed_memory
from pneumo.models.classifier import Classifier
from pneumo.models.inference import default_batch_size
from pneumo.models.scorer import Scorer
from pneumo.prediction.network import Images, Scores
from pneumo.prediction.rules import Rules


class CheckpointNetwork:
    """A checkpoint's network, on the CPU or on a GPU."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Open a checkpoint.

        Args:
            path: Of the checkpoint.
            device: cpu, cuda, or auto, which is a GPU if there is one.

        Raises:
            ConfigError: It is none.
            HardwareError: There is no GPU.
        """
        self.device = _choose_device(device)
        self.classifier = Classifier.load_from_checkpoint(path).eval()
        self.rules = rules_of(self.classifier)
        self.batch_size = default_batch_size(self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.scorer = Scorer(self.classifier).to(self.device)
        outliers, channels = self.classifier.outliers, sum(self.scorer.levels.channels)
        if outliers is not None and len(outliers.mean) != channels:
            raise ConfigError(
                f"{path} tells unlike images by {len(outliers.mean)} channels, and its network has {channels}: it is "
                "damaged or was altered. Take an intact copy of it, or another checkpoint."
            )

    def score(self, image: Images) -> Scores:
        """Score images; see `Network`."""
        with torch.inference_mode(), fitting(len(image)):
            probability, unlike = self.scorer(torch.from_numpy(image).to(self.device))
        return probability.float().cpu().numpy(), unlike.float().cpu().numpy()


@contextmanager
def fitting(films: int) -> Iterator[None]:
    """Tell a user what to do where so many films at once do not fit into a GPU's memory.

    Raises:
        HardwareError: They do not.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise HardwareError(
            f"{films} films at once do not fit into the GPU's memory: take fewer, such as --batch-size "
            f"{max(1, films // 4)}, or --device cpu."
        ) from error


def _choose_device(name: str) -> torch.device:
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise HardwareError(
            f"--device cuda demands a GPU, and PyTorch {torch.__version__} sees none on this machine: take --device "
            "cpu, or check the driver (nvidia-smi) and that this PyTorch was built for it."
        )
    return torch.device("cuda" if there and name != "cpu" else "cpu")


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
