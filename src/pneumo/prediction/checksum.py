"""The SHA-256 of an ONNX file, stored as its last metadata entry: nothing here needs a library for the format."""

import hashlib
from pathlib import Path

KEY = "pneumo_sha256"  # under which readers of the format find it in the metadata
_BLOCK = 1 << 20


class ChecksumError(Exception):
    """A file does not have the SHA-256 that it stores."""


def add_checksum(model: bytes) -> bytes:
    """Return a serialised ONNX model followed by its own SHA-256.

    Protocol buffers may be concatenated: entries of a repeated field, such as the metadata, add up.
    """
    return model + _entry(hashlib.sha256(model).hexdigest())


def verify_checksum(path: Path) -> bool:
    """Return whether a file ends with a SHA-256, which is then right.

    Raises:
        ChecksumError: It is wrong.
        OSError: The file cannot be read.
    """
    expected, left = hashlib.sha256(), path.stat().st_size - len(_entry("0" * 64))
    if left < 0:
        return False
    with path.open("rb") as file:
        file.seek(left)
        end = file.read()
        if KEY.encode() not in end:
            return False
        file.seek(0)
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            expected.update(block)
            left -= len(block)
    if end != _entry(expected.hexdigest()):
        raise ChecksumError(f"it does not have the SHA-256 that it stores as {KEY}")
    return True


def _entry(digest: str) -> bytes:
    """Return field 14 of a ModelProto, a StringStringEntryProto of key and value; all lengths are below 128."""
    key, value = KEY.encode(), digest.encode()
    entry = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(value)]) + value
    return b"\x72" + bytes([len(entry)]) + entry
