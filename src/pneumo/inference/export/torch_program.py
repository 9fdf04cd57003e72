"""PyTorch programs: their writer, and their backend on the CPU."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.export import ExportedProgram

from pneumo.inference.backend import Images, Network, Rules, Scores
from pneumo.inference.onnx_backend import RULES

_METADATA = "pneumo.json"  # the file in a .pt2 that has the metadata


def write_program(program: ExportedProgram, metadata: Mapping[str, str], path: Path) -> None:
    """Write a program and its metadata as a PyTorch program."""
    stream = io.BytesIO()  # PyTorch's own writer raises no OSError
    torch.export.save(program, stream, extra_files={_METADATA: json.dumps(dict(metadata))})
    path.write_bytes(stream.getvalue())


class ProgramNetwork(Network):
    """An exported program on the CPU.

    PyTorch opens such files by pickle, which runs whatever code they hold: only files of one's own may be opened.
    """

    batch_size = 16

    def __init__(self, path: Path) -> None:
        """Open a file that `pneumo.inference.export.writer.write_network` wrote."""
        extra = {_METADATA: ""}
        self.module = torch.export.load(path, extra_files=extra).module()
        self.rules = Rules.from_json(json.loads(extra[_METADATA])[RULES])

    def score(self, image: Images) -> Scores:
        """Score images; see `Network`."""
        with torch.inference_mode():
            probability, unlike = self.module(torch.from_numpy(image))
        return probability.numpy(), unlike.numpy()
