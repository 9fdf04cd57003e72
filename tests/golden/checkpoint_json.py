"""Conversion of checkpoints to and from JSON, which stores only the shapes and dtypes of large tensors."""

import math
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SMALL = 16  # most elements of tensors whose values are stored: steps, scores, indices, pixel statistics


def to_json(value: Any) -> Any:  # noqa: ANN401 (any content of a checkpoint)
    """Convert the content of a checkpoint to plain values for JSON.

    Raises:
        TypeError: A value is neither plain nor a tensor.
    """
    if isinstance(value, Tensor):
        summary = {"dtype": str(value.dtype).removeprefix("torch."), "tensor": list(value.shape)}
        return {**summary, "values": value.tolist()} if value.numel() <= _SMALL else summary
    if type(value) is dict:
        if all(isinstance(key, str) for key in value):
            return {key: to_json(item) for key, item in value.items()}
        return {"pairs": [[to_json(key), to_json(item)] for key, item in value.items()]}
    if type(value) is tuple:
        return {"tuple": [to_json(item) for item in value]}
    if type(value) is list:
        return [to_json(item) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a {type(value).__name__} is neither a plain value nor a tensor")


def from_json(value: Any, path: str = "") -> Any:  # noqa: ANN401 (any JSON value)
    """Convert the result of `to_json` to a checkpoint's content; names determine the values of large tensors."""
    if isinstance(value, list):
        return [from_json(item, f"{path}.{i}") for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        dtype = getattr(torch, value["dtype"])
        if "values" in value:
            return torch.tensor(value["values"], dtype=dtype).reshape(value["tensor"])
        return _fill(value["tensor"], path).to(dtype)
    if value.keys() == {"tuple"}:
        return tuple(from_json(value["tuple"], path))
    if value.keys() == {"pairs"}:
        return {key: from_json(item, f"{path}.{key}") for key, item in value["pairs"]}
    return {key: from_json(item, f"{path}.{key}") for key, item in value.items()}


def _fill(shape: list[int], path: str) -> Tensor:
    """Return reproducible values for a tensor: multiples of powers of two, of a magnitude that suits its name."""
    random = np.random.default_rng(zlib.crc32(path.encode()))
    unit = random.integers(-(2**15), 2**15, shape) / 2**15  # from -1 to 1
    if path.endswith(("running_var", "scale")):
        unit = 1 + unit / 2
    elif path.endswith("exp_avg_sq"):
        unit = (unit + 1.5) / 2**14
    elif path.endswith("exp_avg"):
        unit = unit / 2**10
    elif path.endswith("weight") and len(shape) == 1:  # of a normalization
        unit = 1 + unit / 4
    elif len(shape) > 1:
        unit = unit * 2.0 ** round(math.log2(1 / math.sqrt(math.prod(shape[1:]))) + 1)
    else:
        unit = unit / 8
    return torch.from_numpy(unit.astype(np.float32))
