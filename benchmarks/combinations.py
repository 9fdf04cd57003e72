"""Combinations of several checkpoints for `recipe.py`: their ensemble, and the mean of their weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pneumo.inference.ensemble_writer import write_ensemble
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.checkpoint_writer import save_output
from pneumo.models.ensemble_content import drop_training_state


def combine(checkpoints: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Write the ensemble and the mean of the weights of two or more checkpoints to a folder, and return both files."""
    files = {name: folder / f"{name.replace(' ', '_')}.ckpt" for name in ("ensemble", "mean of weights")}
    write_ensemble(checkpoints, files["ensemble"])
    contents = [read_checkpoint(path) for path in checkpoints]
    mean = {**drop_training_state(contents[0]), "state_dict": average([each["state_dict"] for each in contents])}
    mean.pop("outliers", None)  # fitted to other activations
    save_output("--out", mean, files["mean of weights"])
    return files


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Average weights by name; integers, such as counters, are those of the first network.

    Source: M. Wortsman et al., Model soups (2022). The networks must have started from the same pretrained weights.
    """
    return {
        name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }
