"""Files of tensors, read without running code, and SHA-256 digests of their content."""

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

from pneumo.common.text import plain

# What torch.load and safetensors raise for damaged files: seen by cutting and altering thousands of them at random.
_DAMAGE = (
    AssertionError, AttributeError, EOFError, LookupError, OSError, OverflowError, RuntimeError, SafetensorError,
    TypeError, ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
# Those of them whose text is about the reader: an unknown opcode's number, or torch's advice to allow code.
_UNINFORMATIVE = (AssertionError, AttributeError, EOFError, LookupError, TypeError, pickle.UnpicklingError)
_BLOCKED = re.compile(r"Unsupported (?:global|class): GLOBAL (\S+)")  # torch.load's words, after 700 characters
_DEEPEST = 64  # levels of nesting
_MOST = 5_000_000  # values; references let a small file hold any number of them


class UnreadableError(Exception):
    """A file holds no tensors and plain types, or is damaged; the text tells how, in at most 200 characters."""


class DigestError(Exception):
    """A content is nested too deeply, or larger than what it was read from; the text says which, in a clause."""


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


def digest_tensor(tensor: Tensor) -> bytes:
    """Return the SHA-256 of a tensor's dtype, shape and values, wherever and in whichever order they are stored.

    Of tensors that are not dense, which pneumo does not use, the values do not count.
    """
    found = hashlib.sha256(f"{tensor.dtype}{None if tensor.is_nested else tuple(tensor.shape)}".encode())
    if is_dense(tensor):
        values = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        found.update(values.reshape(-1).view(torch.uint8).numpy().data)  # a view as bytes needs a dimension
    return found.digest()


def digest_content(content: object, known: Mapping[int, bytes] = MappingProxyType({}), most: float = math.inf) -> str:
    """Return the SHA-256 of a content that torch.save and torch.load keep as it is, in hex digits.

    Of types other than plain values, containers and tensors, only the name counts.

    Args:
        content: Plain values, tensors, and dictionaries, lists and tuples of them.
        known: Digests that need not be computed, by the `id` of their tensors.
        most: Bytes of tensors that may be read.

    Raises:
        DigestError: The content is nested too deeply or too large.
    """
    digest = _Digest(known, most)
    digest.add(content, 0)
    return digest.sum.hexdigest()


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


class _Digest:
    def __init__(self, known: Mapping[int, bytes], left: float) -> None:
        self.sum, self.known, self.left, self.count = hashlib.sha256(), known, left, 0

    def add(self, value: Any, depth: int) -> None:  # noqa: ANN401 (whatever a file holds)
        """Add a value; each begins with its type and its length, so that no two contents give the same bytes."""
        self.count += 1
        if depth > _DEEPEST or self.count > _MOST:
            raise DigestError("its content is nested too deeply")
        if isinstance(value, Tensor):
            self.sum.update(b"t" + self._tensor(value))
        elif isinstance(value, Mapping):
            self.sum.update(f"d{len(value)};".encode())
            for key, item in value.items():
                self.add(key, depth + 1)
                self.add(item, depth + 1)
            if attributes := getattr(value, "__dict__", None):  # a state dict's versions of its modules
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
        self.left -= tensor.numel() * tensor.element_size() if is_dense(tensor) else 0
        if self.left < 0:
            raise DigestError("its tensors are larger than the file")
        return digest_tensor(tensor)


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
