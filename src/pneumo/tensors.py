"""Files of tensors, opened without running any code that they may hold."""

import argparse
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pneumo.reasons import plain

# What torch.load and safetensors raise for damaged files: seen by cutting and altering thousands of them at random.
_DAMAGE = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    OverflowError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
)
# Those of them whose text is about the reader: an unknown opcode's number, or torch's advice to allow code.
_UNINFORMATIVE = (AssertionError, AttributeError, EOFError, LookupError, TypeError, pickle.UnpicklingError)

_BLOCKED = re.compile(r"Unsupported (?:global|class): GLOBAL (\S+)")  # torch.load's words, after 700 characters


class UnreadableError(Exception):
    """A file holds no tensors and plain types, or is damaged; the text tells how, in at most 200 characters."""


def read_tensors(path: Path, checked: bool = False) -> Any:  # noqa: ANN401 (whatever the file holds)
    """Read tensors and plain types onto the CPU from a file in the format of safetensors or of torch.save.

    The content decides the format, not the file name.

    Args:
        path: Of the file.
        checked: Require a ZIP archive that agrees with its own CRC-32 sums. `torch.load` ignores them, and torch can
            be set to write none that are right, so they count only in files of known origin.

    Raises:
        UnreadableError: The file is damaged, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"  # its header is JSON after 8 bytes; no torch file has that
            if is_safetensors:
                return safetensors.torch.load_file(path)
            _check_archive(file, checked)
            file.seek(0)
            # Training scripts save their arguments next to the weights; a namespace of plain types runs no code.
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(file, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        blocked = _BLOCKED.search(str(error))
        if blocked:
            text = f"restoring its {blocked[1]} objects could run code"
        else:
            text = "" if isinstance(error, _UNINFORMATIVE) else plain(error)
        raise UnreadableError(text or "it is damaged or of another format") from error


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor has all its values in memory; a file may hold sparse, quantized and other tensors."""
    return tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_nested or tensor.is_meta)


def _check_archive(file: IO[bytes], checked: bool) -> None:
    """Raise an error if a ZIP archive, as torch.save writes it, would need more memory than it has bytes."""
    if not zipfile.is_zipfile(file):
        if checked:
            raise UnreadableError("it is no ZIP archive")
        return
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        # torch.save compresses nothing, while torch.load opens what others have compressed.
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(p.file_size for p in parts) > size:
            raise UnreadableError("its parts are larger than the file")
        if checked and archive.testzip() is not None:
            raise UnreadableError("a part of it differs from its checksum")
