"""Formats of exported networks: ONNX files and PyTorch programs."""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.export import Dim, ExportedProgram

from pneumo.common import __version__
from pneumo.common.text import plain
from pneumo.errors import ConfigError
from pneumo.inference.backend import Images, Network, Rules, Scores
from pneumo.inference.onnx_backend import RULES, add_checksum
from pneumo.models.fast_inference import Scorer

if TYPE_CHECKING:
    from onnx import ModelProto

ABOUT = "pneumo_about"
_EXTRA = "pneumo.json"  # the file in a .pt2 that has the metadata
NETWORK = "network/"  # begins the names of the ONNX nodes that the network itself consists of
_SCOPE = "'levels.backbone.network'"  # how PyTorch calls those
_MOST = 2**31 - 2**24  # bytes of weights: an ONNX file has less than 2 GiB, and a little else is in it
_TEXT = """\
A classifier of chest radiographs, exported by pneumo {version}. Not a medical device: for research and teaching only.
Input image, uint8 (batch, 1, {size}, {size}): make a film grey (ITU-R 601), resize it to {whole} x {whole} pixels \
without keeping its aspect, bilinear and antialiased as by Pillow, and take the middle {size} x {size}.
Output probability, float32 (batch, {count}): of {classes}; {called}.
Output unlike, float32 (batch,): {unlike}."""


def describe(checkpoint: Path, rules: Rules) -> dict[str, str]:
    """Return the metadata: where a file comes from, and all that must be known to use it."""
    positive = rules.positive_class
    binary = positive is not None
    text = _TEXT.format(
        version=__version__,
        size=rules.image_size,
        whole=math.floor(rules.image_size / rules.crop_pct),
        count=len(rules.classes),
        classes=" and ".join(rules.classes) if binary else ", ".join(rules.classes),
        called=f"{positive} is called above {rules.threshold:.9g}" if binary else "the likeliest is called",
        unlike=(
            "how unlike the training images a film is; above 1 it is hardly a frontal chest radiograph"
            if rules.outliers
            else "0, since the checkpoint has nothing to tell by whether a film is unlike the training images"
        ),
    )
    return {
        RULES: rules.to_json(),
        ABOUT: text,
        "pneumo_version": __version__,
        "architecture": rules.name,
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    }


def write_network(scorer: Scorer, rules: Rules, metadata: Mapping[str, str], path: Path) -> None:
    """Write a network in the format that the path's suffix names; the number of images stays open."""
    size = sum(tensor.nbytes for tensor in scorer.state_dict().values())
    if path.suffix == ".onnx" and size > _MOST:
        raise ConfigError(
            f"{rules.name} has {size / 1e9:.1f} GB of weights, and an ONNX file holds 2 GB: take another suffix, .pt2."
        )
    image = torch.zeros(2, 1, rules.image_size, rules.image_size, dtype=torch.uint8)  # of 1 would become a constant
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, of its own deprecated parts
            shapes = {"image": {0: Dim("batch", min=1)}}
            program = torch.export.export(scorer, (image,), dynamic_shapes=shapes, strict=False)
            for node in program.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of this machine
            if path.suffix == ".pt2":
                stream = io.BytesIO()  # PyTorch's own writer raises no OSError
                torch.export.save(program, stream, extra_files={_EXTRA: json.dumps(dict(metadata))})
                path.write_bytes(stream.getvalue())
            else:
                path.write_bytes(add_checksum(_to_onnx(program, metadata).SerializeToString()))
    except RuntimeError as error:
        raise ConfigError(
            f"{rules.name} cannot be exported as {path.suffix} by PyTorch {torch.__version__} "
            f"({plain(error, 300)}): take the other format, or another architecture."
        ) from error


def set_metadata(model: ModelProto, metadata: Mapping[str, str]) -> None:
    """Write metadata into an ONNX model."""
    import onnx

    model.doc_string = metadata[ABOUT]
    model.producer_name, model.producer_version = "pneumo", metadata["pneumo_version"]
    onnx.helper.set_model_props(model, dict(metadata))


def _to_onnx(program: ExportedProgram, metadata: Mapping[str, str]) -> ModelProto:
    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["image"],
        output_names=["probability", "unlike"],
        dynamic_shapes={"image": {0: "batch"}},  # the name that readers of the file see
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    for node in model.graph.node:
        if any(_SCOPE in prop.value for prop in node.metadata_props if prop.key == "pkg.torch.onnx.name_scopes"):
            node.name = NETWORK + node.name
    graph = model.graph
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info, graph):
        del part.metadata_props[:]  # the exporter's notes, a third of the nodes' bytes
    set_metadata(model, metadata)
    return model


class ProgramNetwork(Network):
    """An exported program on the CPU.

    PyTorch opens such files by pickle, which runs whatever code they hold: only files of one's own may be opened.
    """

    batch_size = 16

    def __init__(self, path: Path) -> None:
        """Open a file that `pneumo.inference.export.formats.write_network` wrote."""
        extra = {_EXTRA: ""}
        self.module = torch.export.load(path, extra_files=extra).module()
        self.rules = Rules.from_json(json.loads(extra[_EXTRA])[RULES])

    def score(self, image: Images) -> Scores:
        """Score images; see `Network`."""
        with torch.inference_mode():
            probability, unlike = self.module(torch.from_numpy(image))
        return probability.numpy(), unlike.numpy()
