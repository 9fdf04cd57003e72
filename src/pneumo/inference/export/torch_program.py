"""Exported PyTorch programs (.pt2): export, and a network backend that runs them on the CPU."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.export import ExportedProgram

from pneumo.inference.backend import Images, Network, Rules, Scores
from pneumo.inference.onnx_backend import RULES

_METADATA = "pneumo.json"  # name of the file with the metadata inside a .pt2 file


def write_program(program: ExportedProgram, metadata: Mapping[str, str], path: Path) -> None:
    """Write a program and its metadata as a .pt2 file."""
    stream = io.BytesIO()  # PyTorch does not raise an OSError if it cannot write to a path
    torch.export.save(program, stream, extra_files={_METADATA: json.dumps(dict(metadata))})
    path.write_bytes(stream.getvalue())


class ProgramNetwork(Network):
    """An exported program on the CPU.

    PyTorch loads such files with pickle, which can execute arbitrary code: open trusted files only.
    """

    batch_size = 16

    def __init__(self, path: Path) -> None:
        """Load a file written by `pneumo.inference.export.writer.write_network`."""
        extra = {_METADATA: ""}
        self.module = torch.export.load(path, extra_files=extra).module()
        self.rules = Rules.from_json(json.loads(extra[_METADATA])[RULES])

    def score(self, images: Images) -> Scores:
        """Compute probabilities and OOD scores; see `Network`."""
        with torch.inference_mode():
            probability, ood_score = self.module(torch.from_numpy(images))
        return probability.numpy(), ood_score.numpy()
