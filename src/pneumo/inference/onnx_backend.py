"""The backend of ONNX files, which runs onnxruntime and imports no PyTorch."""

from __future__ import annotations

import hashlib
import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pneumo.common.hardware import count_cores
from pneumo.common.text import plain
from pneumo.errors import ConfigError, HardwareError
from pneumo.inference.backend import Images, Network, Rules, Scores, SettingStyle, as_argument
from pneumo.models.hyperparameters import HyperparameterError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Keys of the file's metadata.
KEY = "pneumo_sha256"
RULES = "pneumo_rules"
ABOUT = "pneumo_about"
_BLOCK = 1 << 20  # bytes that are hashed at once
_log = logging.getLogger(__name__)
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_FATAL = 4  # onnxruntime's number: it raises what it logs


class ChecksumError(Exception):
    """A file does not have the SHA-256 that it stores."""


class OnnxNetwork(Network):
    """An exported network, on the CPU or on a GPU."""

    def __init__(self, path: Path, device: str = "cpu", style: SettingStyle = as_argument) -> None:
        """Open a file that `pneumo export` wrote; `auto` is a GPU if there is one and onnxruntime is made for it.

        Raises:
            ConfigError: It is none, is damaged or was altered, or onnxruntime is missing.
            HardwareError: There is no GPU, or onnxruntime is not made for it.
        """
        try:
            verified = verify_checksum(path)  # before onnxruntime reads what may be damaged
        except (ChecksumError, OSError) as error:
            raise _unreadable(path, error) from error
        self.session = _open(path, device, style)
        self.rules = _read_rules(self.session, path, verified)
        self.batch_size = 128 if _CUDA in self.session.get_providers() else 16
        size = self.rules.image_size
        try:  # only a run shows whether all parts go together; the first one is the slowest too
            probability, unlike = self.score(np.zeros((1, 1, size, size), np.uint8))
            fits = (probability.shape, unlike.shape) == ((1, len(self.rules.classes)), (1,))
        except Exception as error:  # of all kinds, see `_open`
            raise _unreadable(path, error) from error
        if not fits:
            raise _unreadable(path, "its answers do not go with its rules")

    def score(self, image: Images) -> Scores:
        """Score images; see `Network`."""
        probability, unlike = self.session.run(None, {"image": image})[:2]  # the third repeats the second
        return probability, unlike


def _open(path: Path, device: str, style: SettingStyle) -> InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"{path} is run by onnxruntime, which is not installed: pip install 'pneumo[export]', or, for a GPU, "
            "pip install onnxruntime-gpu."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = count_cores()  # its own choice counts those too that this process may not use
    there = _CUDA in onnxruntime.get_available_providers()
    demanded = f"{style('device', 'cuda')} demands a GPU, and onnxruntime {onnxruntime.__version__}"
    if device == "cuda" and not there:
        raise HardwareError(
            f"{demanded} sees none on this machine: take {style('device', 'cpu')}, or install onnxruntime-gpu in its "
            "place."
        )
    # TensorFloat-32 would cost three digits.
    providers = [(_CUDA, {"use_tf32": "0"}), (_CPU, {})] if there and device != "cpu" else [(_CPU, {})]
    try:
        # Trying again on the CPU would print that. A GPU whose libraries are missing is left out all the same.
        session = onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:  # of a damaged file it raises a dozen kinds, which have nothing else in common
        raise _unreadable(path, error) from error
    if device == "cuda" and _CUDA not in session.get_providers():
        raise HardwareError(
            f"{demanded} cannot use one on this machine: take {style('device', 'cpu')}, or install the CUDA and cuDNN "
            "that it was made for."
        )
    return session


def _unreadable(path: Path, reason: object) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read as a network ({plain(reason)}): it is damaged, was altered, or "
        "needs a newer onnxruntime. Export it anew: pneumo export CHECKPOINT --output FILE.onnx."
    )


def _read_rules(session: InferenceSession, path: Path, verified: bool) -> Rules:
    """Read the rules from the metadata, and compare them with the network's input and output."""
    known = session.get_modelmeta().custom_metadata_map
    if KEY in known and not verified:
        raise _unreadable(path, f"it was altered after its export, since its {KEY} is not at its end")
    try:
        rules = Rules.from_json(known[RULES])
    except KeyError as error:
        raise ConfigError(
            f"{path} is a network, but not one that this version of pneumo exported: its metadata have no {RULES} that "
            "tell classes, image size and threshold. Export a checkpoint: pneumo export CHECKPOINT --output FILE.onnx."
        ) from error
    except HyperparameterError as error:
        raise _unreadable(path, f"of its {RULES}, {error}") from error
    side = rules.image_size
    outputs = len(session.get_outputs())  # 2 in files of earlier versions
    if [each.shape[1:] for each in session.get_inputs()] != [[1, side, side]] or outputs not in (2, 3):
        raise _unreadable(path, f"its input is not (batch, 1, {side}, {side}), or its outputs are not two or three")
    if not verified:
        _warn_unverified(path.resolve(), path.stat().st_mtime_ns)
    return rules


@cache
def _warn_unverified(path: Path, changed: int) -> None:
    _log.warning(
        "%s has no SHA-256, as exports of early versions have none: whether it was altered cannot be verified.", path
    )


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
