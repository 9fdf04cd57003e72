"""Safe reader of tensor files, which runs no code, and SHA-256 digests of their content."""

import argparse
import hashlib
import math
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pneumo.common.text import short_line

# Errors of torch.load and safetensors for damaged files, collected from thousands of randomly corrupted files.
_DAMAGE = (
    AssertionError, AttributeError, EOFError, LookupError, OSError, OverflowError, RuntimeError, SafetensorError,
    TypeError, ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
# Errors whose text does not help the user: an unknown opcode, or torch's advice to allow code.
_UNINFORMATIVE = (AssertionError, AttributeError, EOFError, LookupError, TypeError, pickle.UnpicklingError)
_BLOCKED = re.compile(r"Unsupported (?:global|class): GLOBAL (\S+)")  # part of torch.load's long message
_MAX_DEPTH = 64
_MAX_VALUES = 5_000_000  # references let a small file hold any number of values


class UnreadableError(Exception):
    """A file is damaged or contains more than tensors and plain types; the message has at most 200 characters."""


class DigestError(Exception):
    """Content is nested too deeply, or larger than allowed; the message is a clause."""


def read_tensors(path: Path, checked: bool = False) -> Any:  # noqa: ANN401 (any tensors and plain types)
    """Load tensors and plain types onto the CPU from a file of safetensors or torch.save.

    The format is detected from the content, not from the file name.

    Args:
        path: Path of the file.
        checked: Require a ZIP archive with valid CRC-32 checksums. `torch.load` ignores checksums, and torch can be
            configured to write invalid ones, so only files of known origin can be checked.

    Raises:
        UnreadableError: The file is damaged or contains other objects.
    """
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"  # its JSON header starts at byte 8; torch files have no { there
            if is_safetensors:
                return safetensors.torch.load_file(path)
            _check_archive(file, checked)
            file.seek(0)
            # Training scripts often save their arguments with the weights; a namespace of plain types runs no code.
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(file, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        blocked = _BLOCKED.search(str(error))
        if blocked:
            text = f"restoring its {blocked[1]} objects could run code"
        else:
            text = "" if isinstance(error, _UNINFORMATIVE) else short_line(error)
        raise UnreadableError(text or "it is damaged or has another format") from error


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor is dense: strided, and not quantized, nested or on the meta device."""
    return tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_nested or tensor.is_meta)


def hash_tensor(tensor: Tensor) -> bytes:
    """Return the SHA-256 of a tensor's dtype, shape and values, regardless of its device and memory layout.

    The values of tensors that are not dense, which pneumo does not use, are ignored.
    """
    digest = hashlib.sha256(f"{tensor.dtype}{None if tensor.is_nested else tuple(tensor.shape)}".encode())
    if is_dense(tensor):
        values = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)  # a 0-dimensional tensor has no byte view
    return digest.digest()


def hash_content(content: object, known: Mapping[int, bytes] = MappingProxyType({}), limit: float = math.inf) -> str:
    """Return the SHA-256 of nested tensors and plain values in hex digits; saving and loading do not change it.

    Objects of other types are represented by the name of their type.

    Args:
        content: Plain values, tensors, and dictionaries, lists and tuples of them.
        known: Precomputed digests, by the `id` of their tensors.
        limit: Largest total size of the tensors in bytes.

    Raises:
        DigestError: The content is nested too deeply or too large.
    """
    digest = _Digest(known, limit)
    digest.add(content, 0)
    return digest.sum.hexdigest()


def _check_archive(file: IO[bytes], checked: bool) -> None:
    """Raise an UnreadableError if a ZIP archive would unpack to more than its size or, with `checked`, is damaged."""
    if not zipfile.is_zipfile(file):
        if checked:
            raise UnreadableError("it is not a ZIP archive")
        return
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        # torch.save never compresses, but torch.load would decompress.
        if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > size:
            raise UnreadableError("its members are larger than the file")
        if checked and archive.testzip() is not None:
            raise UnreadableError("one of its members has a wrong checksum")


class _Digest:
    def __init__(self, known: Mapping[int, bytes], limit: float) -> None:
        self.sum, self.known, self.bytes_left, self.count = hashlib.sha256(), known, limit, 0

    def add(self, value: Any, depth: int) -> None:  # noqa: ANN401 (any tensors and plain types)
        """Add a value with its type and length first, so that different contents never give the same bytes."""
        self.count += 1
        if depth > _MAX_DEPTH or self.count > _MAX_VALUES:
            raise DigestError("its content is nested too deeply")
        if isinstance(value, Tensor):
            self.sum.update(b"t" + self._tensor(value))
        elif isinstance(value, Mapping):
            self.sum.update(f"d{len(value)};".encode())
            for key, item in value.items():
                self.add(key, depth + 1)
                self.add(item, depth + 1)
            if attributes := getattr(value, "__dict__", None):  # a state dict's module versions
                self.add(attributes, depth + 1)
        elif isinstance(value, list | tuple):
            self.sum.update(f"{'l' if isinstance(value, list) else 'u'}{len(value)};".encode())
            for item in value:
                self.add(item, depth + 1)
        else:
            self.sum.update(_encode(value))

    def _tensor(self, tensor: Tensor) -> bytes:
        if (digest := self.known.get(id(tensor))) is not None:
            return digest
        self.bytes_left -= tensor.numel() * tensor.element_size() if is_dense(tensor) else 0
        if self.bytes_left < 0:
            raise DigestError("its tensors are larger than the file")
        return hash_tensor(tensor)


def _encode(value: object) -> bytes:
    if isinstance(value, float):
        return b"f" + struct.pack(">d", value)
    if isinstance(value, str | bytes | bytearray):
        text = value.encode(errors="surrogatepass") if isinstance(value, str) else bytes(value)
        return f"{'s' if isinstance(value, str) else 'b'}{len(text)};".encode() + text
    if isinstance(value, bool | int):
        return f"{'o' if isinstance(value, bool) else 'i'}{value:x};".encode()
    kind = type(value)
    return f"x{kind.__module__}.{kind.__qualname__};{value if isinstance(value, torch.dtype) else ''};".encode()
