"""Quantisation of exported networks to int8."""

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

_BLOCK = 8  # images per batch
# Layers, and the operators between them, so that activations stay in int8 throughout.
_OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "MaxPool", "Concat")
_MATCHED_QUANTILE = 0.99  # quantile of the OOD scores that quantisation preserves
_Array = npt.NDArray[np.float64]


def quantise(source: Path, target: Path, images: Images, metadata: Mapping[str, str]) -> None:
    """Quantise the layers of an exported network to int8: static, QDQ format, per channel.

    Weights have 7 bits, so that sums do not saturate on processors without VNNI. Depthwise weights have 8: their sums
    are computed differently, and each channel has so few weights that the lost bit would cost accuracy.

    Rounding the weights shifts the mean of each channel. The biases of the layers compensate this shift (M. Nagel et
    al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019). The head and the OOD detector
    stay float32 and compensate the remaining shift.

    Args:
        source: Exported network in float32.
        target: File to write.
        images: Training images for calibration, (N, 1, S, S).
        metadata: Metadata of the new file.
    """
    model = onnx.load(source)
    nodes = [node for node in model.graph.node if node.name.startswith(NETWORK) and node.op_type in _OPERATORS]
    weights = _tensors(model)
    eight_bits = {"axis": 0, "quant_type": QuantType.QInt8, "symmetric": True, "reduce_range": False}
    depthwise = [node.input[1] for node in nodes if _is_depthwise(node, weights)]
    disabled_level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # onnxruntime recommends preprocessing that is not needed here
    try:
        quantize_static(
            source,
            target,
            SimpleNamespace(get_next=partial(next, _batches(images), None)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[node.name for node in nodes],
            extra_options={"TensorQuantOverrides": {name: [eight_bits] for name in depthwise}},
        )
    finally:
        logging.disable(disabled_level)
    quantised = onnx.load(target)
    _correct_biases(model, quantised, images)
    _correct_outputs(model, quantised, images)
    set_metadata(quantised, metadata)
    target.write_bytes(add_checksum(quantised.SerializeToString()))


def _batches(images: Images) -> Iterator[dict[str, Images]]:
    for start in range(0, len(images), _BLOCK):
        yield {"image": images[start : start + _BLOCK]}


def _is_depthwise(node: NodeProto, weights: Mapping[str, TensorProto]) -> bool:
    return node.op_type == "Conv" and list(weights[node.input[1]].dims[:2]) == [_groups(node), 1]


def _groups(node: NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)


def _correct_biases(model: ModelProto, quantised: ModelProto, images: Images) -> None:
    """Adjust the biases of all convolutions to compensate the mean shift that rounding their weights causes."""
    layers = {node.name: node for node in model.graph.node if node.op_type == "Conv" and node.name.startswith(NETWORK)}
    means = _run(model, list({node.input[0]: None for node in layers.values()}), images)
    exact, rounded = _tensors(model), _tensors(quantised)
    producers = {name: node for node in quantised.graph.node for name in node.output}
    corrected = set()  # with flip_test, two nodes share a bias
    for node in quantised.graph.node:
        layer = layers.get(node.name)
        if layer is None or len(node.input) < 3 or (bias := producers[node.input[2]]).input[0] in corrected:
            continue
        # Weights are quantised symmetrically: there is no zero point.
        weight, scale = (_values(rounded[name]) for name in producers[node.input[1]].input[:2])
        error = (_values(exact[layer.input[1]]) - weight * scale.reshape(-1, 1, 1, 1)).sum((2, 3))
        mean = means[layer.input[0]].mean(0).reshape(_groups(node), -1)  # (groups, inputs per group)
        shift = (error * mean.repeat(len(error) // len(mean), axis=0)).sum(1)
        step = _values(rounded[bias.input[1]])
        steps = np.divide(shift, step, out=np.zeros_like(shift), where=step > 0)  # 0 if all weights are 0
        _replace(rounded[bias.input[0]], (_values(rounded[bias.input[0]]) + steps.round()).astype(np.int32))
        corrected.add(bias.input[0])


def _correct_outputs(model: ModelProto, quantised: ModelProto, images: Images) -> None:
    """Adjust the head's bias and the OOD detector, so that mean logits and the matched quantile stay the same."""
    heads = [node.output[0] for node in _head_nodes(model)]
    means = [node.input[0] for node in model.graph.node if node.op_type == "Sub" and node.input[1] == "mean"]
    tensors = _tensors(quantised)
    before, after = (_run(each, [*heads, *means, "unlike"], images) for each in (model, quantised))
    shift = np.mean([(after[name] - before[name]).mean(0) for name in heads], axis=0)
    bias = tensors.get("head.bias") or _add_head_bias(quantised, len(shift))
    _replace(bias, (_values(bias) - shift).astype(np.float32))
    if not means:  # the network has no OOD detector
        return
    mean, scale = tensors["mean"], tensors["scale"]
    _replace(mean, (_values(mean) + (after[means[0]] - before[means[0]]).mean(0)).astype(np.float32))
    corrected = _run(quantised, ["unlike"], images)["unlike"]
    limit, new_limit = (np.quantile(each, _MATCHED_QUANTILE, method="higher") for each in (before["unlike"], corrected))
    _replace(scale, (_values(scale) * np.sqrt(limit / new_limit)).astype(np.float32))


def _head_nodes(model: ModelProto) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Gemm" and node.input[1] == "head.weight"]


def _add_head_bias(model: ModelProto, classes: int) -> TensorProto:
    """Add a bias of zeros to the head, because the ONNX exporter drops a bias that is all zeros."""
    bias: TensorProto = model.graph.initializer.add()
    bias.CopyFrom(onnx.numpy_helper.from_array(np.zeros(classes, np.float32), "head.bias"))
    for node in _head_nodes(model):
        node.input.append(bias.name)
    return bias


def _run(model: ModelProto, names: list[str], images: Images) -> dict[str, _Array]:
    """Run a network on images and return its tensors of these names: (N, ...), or means (N, channels) of maps."""
    extended = copy.deepcopy(model)
    existing = {output.name for output in model.graph.output}
    for name in {*names} - existing:
        extended.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(extended.SerializeToString(), providers=["CPUExecutionProvider"])
    batches = zip(*(map(_pool, session.run(names, batch)) for batch in _batches(images)), strict=True)
    return {name: np.concatenate(values) for name, values in zip(names, batches, strict=True)}


def _pool(values: npt.NDArray[np.float32]) -> _Array:
    return np.asarray(values.mean((2, 3)) if values.ndim == 4 else values, np.float64)


def _tensors(model: ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _values(tensor: TensorProto) -> _Array:
    return np.asarray(onnx.numpy_helper.to_array(tensor), np.float64)


def _replace(tensor: TensorProto, values: npt.NDArray[Any]) -> None:
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
