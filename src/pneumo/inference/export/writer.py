"""Export of networks to files, with metadata."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim

from pneumo.common import __version__
from pneumo.common.text import short_line
from pneumo.errors import ConfigError
from pneumo.inference.backend import Network, Rules
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.onnx_backend import ABOUT, ADAPTATION, RULES
from pneumo.models.adaptation_record import describe_adaptation, format_adaptation

_TEXT = """\
A classifier of chest radiographs, exported by pneumo {version}. Not a medical device: for research and teaching only.
Input image: uint8 (batch, 1, {size}, {size}). A radiograph is converted to grey (ITU-R 601) and \
{conversion}. Resizing is bilinear with antialiasing, as in Pillow.
Output probability: float32 (batch, {count}), for the classes {classes}; {rule}.
Output ood_score: float32 (batch,), {ood_score}.
In ONNX files, the output unlike has the same values as ood_score; its name is kept for compatibility."""


def describe_network(checkpoint: Path, network: Network) -> dict[str, str]:
    """Return a file's metadata: the checkpoint it was exported from, and everything needed to use the network."""
    rules, adaptation = network.rules, network.adaptation()
    positive = rules.positive_class
    binary = positive is not None
    text = _TEXT.format(
        version=__version__,
        size=rules.image_size,
        conversion=rules.input_format.describe(),
        count=len(rules.classes),
        classes=" and ".join(rules.classes) if binary else ", ".join(rules.classes),
        rule=f"predict {positive} above {rules.threshold:.9g}" if binary else "predict the most probable class",
        ood_score=(
            "the out-of-distribution (OOD) score: above 1, the image is probably not a frontal chest radiograph"
            if rules.has_ood_detector
            else "always 0, because the checkpoint has no out-of-distribution (OOD) detector"
        ),
    )
    return {
        RULES: rules.to_json(),
        ABOUT: text if adaptation is None else f"{text}\n{describe_adaptation(adaptation)}",
        **({} if adaptation is None else {ADAPTATION: format_adaptation(adaptation)}),
        "pneumo_version": __version__,
        "architecture": rules.name,
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    }


def write_network(module: nn.Module, rules: Rules, metadata: Mapping[str, str], path: Path) -> None:
    """Write a network in the format that the path's suffix selects; the batch size is dynamic."""
    file_format = FORMATS[path.suffix]
    size = sum(tensor.nbytes for tensor in module.state_dict().values())
    if file_format.max_bytes is not None and size > file_format.max_bytes:
        unlimited = [suffix for suffix, other in FORMATS.items() if other.max_bytes is None]
        raise ConfigError(
            f"{rules.name} has {size / 1e9:.1f} GB of weights, but {file_format.file} can hold at most "
            f"{file_format.max_bytes / 1e9:.0f} GB. Use a file name that ends in {' or '.join(unlimited)}."
        )
    # A batch of 1 would be exported as a constant.
    image = torch.zeros(2, 1, rules.image_size, rules.image_size, dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns about deprecated code of its own
            shapes = {"image": {0: Dim("batch", min=1)}}
            program = torch.export.export(module, (image,), dynamic_shapes=shapes, strict=False)
            for node in program.graph.nodes:
                node.meta.pop("stack_trace", None)  # contains paths of this machine
            file_format.write(program, metadata, path)
    except RuntimeError as error:
        raise ConfigError(
            f"{rules.name} cannot be exported as {path.suffix} by PyTorch {torch.__version__} "
            f"({short_line(error, 300)}). Use another format or another architecture."
        ) from error
