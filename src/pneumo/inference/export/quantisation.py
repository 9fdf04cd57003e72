"""Quantisation of exported networks to 8 bits."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from pneumo.inference.backend import Images
from pneumo.inference.export.onnx_writer import NETWORK, set_metadata
from pneumo.inference.onnx_backend import add_checksum

_BLOCK = 8  # films at once
# Those that compute, and those between them, so that 8 bits stay 8 bits.
_LAYERS = ("Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "MaxPool", "Concat")
_USUAL = 0.99  # share of the films by which the limit of unlike images is held
_Array = npt.NDArray[np.float64]


def quantise(source: Path, target: Path, films: Images, metadata: Mapping[str, str]) -> None:
    """Write an exported network anew with its layers in 8 bits, all else as it was: static, QDQ, per channel.

    Weights have 7 bits, so that processors without VNNI do not saturate; those of depthwise convolutions, which are
    added up otherwise and are so few a channel that it would show, have 8. What rounding weights shifts on average is
    taken from the biases (M. Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction,
    2019), and what is shifted yet is put right where numbers are float again: in the head's bias, and in the model that
    tells unlike images. Films of training, (N, 1, S, S), tell how large activations are.
    """
    model = onnx.load(source)
    nodes = [node for node in model.graph.node if node.name.startswith(NETWORK) and node.op_type in _LAYERS]
    weights = _tensors(model)
    eight_bits = {"axis": 0, "quant_type": QuantType.QInt8, "symmetric": True, "reduce_range": False}
    depthwise = [node.input[1] for node in nodes if _is_depthwise(node, weights)]
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # onnxruntime's advice
    try:
        quantize_static(
            source,
            target,
            SimpleNamespace(get_next=partial(next, _blocks(films), None)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_LAYERS),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[node.name for node in nodes],
            extra_options={"TensorQuantOverrides": {name: [eight_bits] for name in depthwise}},
        )
    finally:
        logging.disable(before)
    quantised = onnx.load(target)
    _correct_biases(model, quantised, films)
    _correct_outputs(model, quantised, films)
    set_metadata(quantised, metadata)
    target.write_bytes(add_checksum(quantised.SerializeToString()))


def _blocks(films: Images) -> Iterator[dict[str, Images]]:
    for start in range(0, len(films), _BLOCK):
        yield {"image": films[start : start + _BLOCK]}


def _is_depthwise(node: NodeProto, weights: Mapping[str, TensorProto]) -> bool:
    return node.op_type == "Conv" and list(weights[node.input[1]].dims[:2]) == [_groups(node), 1]


def _groups(node: NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)


def _correct_biases(model: ModelProto, quantised: ModelProto, films: Images) -> None:
    """Take from each convolution's bias what the rounding of its weights adds to its channels on average."""
    layers = {node.name: node for node in model.graph.node if node.op_type == "Conv" and node.name.startswith(NETWORK)}
    means = _run(model, list({node.input[0]: None for node in layers.values()}), films)
    exact, rounded = _tensors(model), _tensors(quantised)
    makers = {name: node for node in quantised.graph.node for name in node.output}
    corrected = set()  # two layers have one bias where the mirror image passes too
    for node in quantised.graph.node:
        layer = layers.get(node.name)
        if layer is None or len(node.input) < 3 or (bias := makers[node.input[2]]).input[0] in corrected:
            continue
        weight, scale = (_values(rounded[name]) for name in makers[node.input[1]].input[:2])  # symmetric: no zero point
        missing = (_values(exact[layer.input[1]]) - weight * scale.reshape(-1, 1, 1, 1)).sum((2, 3))
        mean = means[layer.input[0]].mean(0).reshape(_groups(node), -1)  # (groups, inputs of a group)
        shift = (missing * mean.repeat(len(missing) // len(mean), axis=0)).sum(1)
        step = _values(rounded[bias.input[1]])
        steps = np.divide(shift, step, out=np.zeros_like(shift), where=step > 0)  # 0 where all weights are
        _replace(rounded[bias.input[0]], (_values(rounded[bias.input[0]]) + steps.round()).astype(np.int32))
        corrected.add(bias.input[0])


def _correct_outputs(model: ModelProto, quantised: ModelProto, films: Images) -> None:
    """Have what follows the quantised layers expect what these give: the same logits on average, and the same limit."""
    heads = [node.output[0] for node in model.graph.node if node.op_type == "Gemm" and node.input[1] == "head.weight"]
    means = [node.input[0] for node in model.graph.node if node.op_type == "Sub" and node.input[1] == "mean"]
    tensors = _tensors(quantised)
    before, after = (_run(each, [*heads, *means, "unlike"], films) for each in (model, quantised))
    moved = np.mean([(after[name] - before[name]).mean(0) for name in heads], axis=0)
    bias = tensors["head.bias"]
    _replace(bias, (_values(bias) - moved).astype(np.float32))
    if not means:  # the checkpoint cannot tell unlike images
        return
    mean, scale = tensors["mean"], tensors["scale"]
    _replace(mean, (_values(mean) + (after[means[0]] - before[means[0]]).mean(0)).astype(np.float32))
    now = _run(quantised, ["unlike"], films)["unlike"]
    limit, limit_now = (np.quantile(scores, _USUAL, method="higher") for scores in (before["unlike"], now))
    _replace(scale, (_values(scale) * np.sqrt(limit / limit_now)).astype(np.float32))


def _run(model: ModelProto, names: list[str], films: Images) -> dict[str, _Array]:
    """Return tensors inside a network when films run through it: (N, ...), of maps the means (N, channels)."""
    listening = copy.deepcopy(model)
    known = {output.name for output in model.graph.output}
    for name in {*names} - known:
        listening.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(listening.SerializeToString(), providers=["CPUExecutionProvider"])
    found = zip(*(map(_pool, session.run(names, block)) for block in _blocks(films)), strict=True)
    return {name: np.concatenate(blocks) for name, blocks in zip(names, found, strict=True)}


def _pool(values: npt.NDArray[np.float32]) -> _Array:
    return np.asarray(values.mean((2, 3)) if values.ndim == 4 else values, np.float64)


def _tensors(model: ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _values(tensor: TensorProto) -> _Array:
    return np.asarray(onnx.numpy_helper.to_array(tensor), np.float64)


def _replace(tensor: TensorProto, values: npt.NDArray[Any]) -> None:
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
