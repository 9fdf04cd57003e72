"""Files of tensors, opened without running any code that they may hold."""

import pickle
import struct
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

# What torch.load and safetensors raise for damaged files: seen by cutting and altering thousands of them at random.
_DAMAGE = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


class UnreadableError(Exception):
    """A file holds no tensors and plain types, or is damaged; the text tells how, in at most 200 characters."""


def read_tensors(path: Path) -> Any:  # noqa: ANN401 (whatever the file holds)
    """Read tensors and plain types from a .safetensors file or from one that torch.save wrote, onto the CPU.

    Raises:
        UnreadableError: The file is damaged, or holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise UnreadableError(" ".join(str(error).split())[:200] or type(error).__name__) from error
