"""A network that `pneumo export` wrote as a PyTorch program, opened to check it."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from pneumo.exporting.formats import EXTRA
from pneumo.prediction.exported import RULES
from pneumo.prediction.network import Images, Network, Scores
from pneumo.prediction.rules import Rules


class ProgramNetwork(Network):
    """An exported program on the CPU.

    PyTorch opens such files by pickle, which runs whatever code they hold: only files of one's own may be opened.
    """

    batch_size = 16

    def __init__(self, path: Path) -> None:
        """Open a file that `pneumo.exporting.formats.write_network` wrote."""
        extra = {EXTRA: ""}
        self.module = torch.export.load(path, extra_files=extra).module()
        self.rules = Rules.from_json(json.loads(extra[EXTRA])[RULES])

    def score(self, image: Images) -> Scores:
        """Score images; see `Network`."""
        with torch.inference_mode():
            probability, unlike = self.module(torch.from_numpy(image))
        return probability.numpy(), unlike.numpy()
