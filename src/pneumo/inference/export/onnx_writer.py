"""Export of networks to ONNX files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from onnx import ModelProto
from torch.export import ExportedProgram

from pneumo.inference.onnx_backend import ABOUT, add_checksum

NETWORK = "network/"  # prefix of the names of ONNX nodes that belong to the network itself
_SCOPE = "'levels.backbone.network'"  # the module path that PyTorch records for these nodes


def write_onnx(program: ExportedProgram, metadata: Mapping[str, str], path: Path) -> None:
    """Write a program and its metadata as an ONNX file."""
    path.write_bytes(add_checksum(_to_onnx(program, metadata).SerializeToString()))


def set_metadata(model: ModelProto, metadata: Mapping[str, str]) -> None:
    """Write metadata into an ONNX model."""
    model.doc_string = metadata[ABOUT]
    model.producer_name, model.producer_version = "pneumo", metadata["pneumo_version"]
    onnx.helper.set_model_props(model, dict(metadata))


def _to_onnx(program: ExportedProgram, metadata: Mapping[str, str]) -> ModelProto:
    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["image"],
        output_names=["probability", "unlike"],
        dynamic_shapes={"image": {0: "batch"}},  # name of the dimension in the file
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    for node in model.graph.node:
        if any(_SCOPE in prop.value for prop in node.metadata_props if prop.key == "pkg.torch.onnx.name_scopes"):
            node.name = NETWORK + node.name
    graph = model.graph
    # Files of earlier versions have only the name `unlike`.
    graph.node.append(onnx.helper.make_node("Identity", ["unlike"], ["ood_score"], name="ood_score"))
    graph.output.add().CopyFrom(graph.output[1])
    graph.output[2].name = "ood_score"
    for element in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info, graph):
        del element.metadata_props[:]  # debugging information, a third of the nodes' bytes
    set_metadata(model, metadata)
    return model
