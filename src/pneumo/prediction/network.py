"""A trained network opened for use, whichever program computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pneumo.errors import ConfigError
from pneumo.prediction.rules import Rules

Images = npt.NDArray[np.uint8]
Scores = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


class Network(Protocol):
    """What a network for predictions can do.

    Attributes:
        rules: How its answers are to be taken.
        batch_size: Images that it scores in the least time each.
    """

    rules: Rules
    batch_size: int

    def score(self, image: Images) -> Scores:
        """Score images (N, 1, S, S): probabilities (N, classes), and how unlike the training images they are (N,)."""
        ...


def no_maps(network: Network) -> ConfigError:
    """Make the error that tells why an exported network explains nothing."""
    return ConfigError(
        f"Maps need gradients, and an exported network ({network.rules.name}) has none: give the checkpoint."
    )


def open_network(path: Path, device: str = "cpu") -> Network:
    """Open a checkpoint of pneumo, or what `pneumo export` made of one.

    Args:
        path: Its file.
        device: Where the network computes: cpu, cuda, or auto, which is a GPU if there is one.

    Raises:
        ConfigError: There is no such file, it is nothing of the kind, or no device has that name.
        HardwareError: The device is not there.
    """
    if not path.is_file():
        raise ConfigError(
            f"{path} is not a file: give a checkpoint, such as RUN/checkpoints/best.ckpt, or a network that "
            "`pneumo export` made of one."
        )
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device} is none of auto, cpu and cuda; auto takes a GPU if there is one.")
    if path.suffix.lower() == ".onnx":
        from pneumo.prediction.exported import OnnxNetwork

        return OnnxNetwork(path, device)
    if path.suffix.lower() == ".pt2":
        raise ConfigError(
            f"{path} is for programs of your own (torch.export.load): opening such a file runs whatever code it holds, "
            "so pneumo does not. Give the checkpoint that it was made of, or export that as .onnx."
        )
    from pneumo.prediction.checkpoint import CheckpointNetwork  # imports torch

    return CheckpointNetwork(path, device)
