"""SHA-256 digests of nested plain values and tensors, which change with any bit of them."""

import hashlib
import math
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from pneumo.tensors import is_dense

_DEEPEST = 64  # levels of nesting
_MOST = 5_000_000  # values; references let a small file hold any number of them


class DigestError(Exception):
    """A content is nested too deeply, or larger than what it was read from; the text says which, in a clause."""


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
