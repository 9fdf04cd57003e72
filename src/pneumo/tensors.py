"""Files of tensors, opened without running any code that they may hold."""

import argparse
import pickle
import re
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
# Those of them whose text is about the reader: an unknown opcode's number, or torch's advice to allow code.
_UNINFORMATIVE = (AssertionError, AttributeError, EOFError, LookupError, TypeError, pickle.UnpicklingError)

_BLOCKED = re.compile(r"Unsupported (?:global|class): GLOBAL (\S+)")  # torch.load's words, after 700 characters


class UnreadableError(Exception):
    """A file holds no tensors and plain types, or is damaged; the text tells how, in at most 200 characters."""


def read_tensors(path: Path) -> Any:  # noqa: ANN401 (whatever the file holds)
    """Read tensors and plain types onto the CPU from a file in the format of safetensors or of torch.save.

    The content decides the format, not the file name.

    Raises:
        UnreadableError: The file is damaged, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"  # its header is JSON after 8 bytes; no torch file has that
            if is_safetensors:
                return safetensors.torch.load_file(path)
            file.seek(0)
            # Training scripts save their arguments next to the weights; a namespace of plain types runs no code.
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(file, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        blocked = _BLOCKED.search(str(error))
        if blocked:
            text = f"restoring its {blocked[1]} objects could run code"
        else:
            text = "" if isinstance(error, _UNINFORMATIVE) else " ".join(str(error).split())
        raise UnreadableError(text[:200] or "it is damaged or of another format") from error
