"""The writer of exported networks: traces a network, and adds its metadata."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.export import Dim

from pneumo.common import __version__
from pneumo.common.text import plain
from pneumo.errors import ConfigError
from pneumo.inference.backend import Rules
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.onnx_backend import ABOUT, RULES
from pneumo.models.fast_inference import Scorer

_TEXT = """\
A classifier of chest radiographs, exported by pneumo {version}. Not a medical device: for research and teaching only.
Input image, uint8 (batch, 1, {size}, {size}): make a film grey (ITU-R 601), resize it to {whole} x {whole} pixels \
without keeping its aspect, bilinear and antialiased as by Pillow, and take the middle {size} x {size}.
Output probability, float32 (batch, {count}): of {classes}; {called}.
Output unlike, float32 (batch,): {unlike}."""


def describe_network(checkpoint: Path, rules: Rules) -> dict[str, str]:
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
    form = FORMATS[path.suffix]
    size = sum(tensor.nbytes for tensor in scorer.state_dict().values())
    if form.most_bytes is not None and size > form.most_bytes:
        unlimited = [suffix for suffix, other in FORMATS.items() if other.most_bytes is None]
        raise ConfigError(
            f"{rules.name} has {size / 1e9:.1f} GB of weights, and {form.file} holds {form.most_bytes / 1e9:.0f} GB: "
            f"take another suffix, {' or '.join(unlimited)}."
        )
    image = torch.zeros(2, 1, rules.image_size, rules.image_size, dtype=torch.uint8)  # of 1 would become a constant
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, of its own deprecated parts
            shapes = {"image": {0: Dim("batch", min=1)}}
            program = torch.export.export(scorer, (image,), dynamic_shapes=shapes, strict=False)
            for node in program.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of this machine
            form.write(program, metadata, path)
    except RuntimeError as error:
        raise ConfigError(
            f"{rules.name} cannot be exported as {path.suffix} by PyTorch {torch.__version__} "
            f"({plain(error, 300)}): take the other format, or another architecture."
        ) from error
