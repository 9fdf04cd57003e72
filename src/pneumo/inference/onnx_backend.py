"""The backend of ONNX files, based on onnxruntime and independent of PyTorch."""

from __future__ import annotations

import hashlib
import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pneumo.common.hardware import count_cores
from pneumo.common.text import short_line
from pneumo.errors import ConfigError, HardwareError
from pneumo.inference.backend import Images, Network, Rules, Scores, SettingStyle, as_argument
from pneumo.models.adaptation_record import AdaptationError, parse_adaptation
from pneumo.models.hyperparameters import HyperparameterError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Keys of the file's metadata
SHA256 = "pneumo_sha256"
RULES = "pneumo_rules"
ABOUT = "pneumo_about"
ADAPTATION = "pneumo_adaptation"
_CHUNK_SIZE = 1 << 20  # bytes
_log = logging.getLogger(__name__)
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_FATAL = 4  # log severity of onnxruntime; lower ones would print errors that are also raised


class ChecksumError(Exception):
    """A file whose SHA-256 differs from the one stored in it."""


class OnnxNetwork(Network):
    """An exported network, on the CPU or on a GPU."""

    def __init__(self, path: Path, device: str = "cpu", style: SettingStyle = as_argument) -> None:
        """Load a file written by `pneumo export`; `auto` uses a GPU if onnxruntime supports one.

        Raises:
            ConfigError: The file is not an export, is damaged or was altered, or onnxruntime is not installed.
            HardwareError: No GPU is available, or onnxruntime does not support it.
        """
        try:
            verified = verify_checksum(path)  # before onnxruntime parses a possibly damaged file
        except (ChecksumError, OSError) as error:
            raise _unreadable(path, error) from error
        self.session = _open(path, device, style)
        self.rules = _read_rules(self.session, path, verified)
        self._adaptation = _read_adaptation(self.session, path)
        self.batch_size = 128 if _CUDA in self.session.get_providers() else 16
        size = self.rules.image_size
        try:  # only inference shows whether the graph is valid; it also warms up the session
            probability, ood_score = self.score(np.zeros((1, 1, size, size), np.uint8))
            valid = (probability.shape, ood_score.shape) == ((1, len(self.rules.classes)), (1,))
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise _unreadable(path, error) from error
        if not valid:
            raise _unreadable(path, "the shapes of its outputs contradict its rules")

    def score(self, images: Images) -> Scores:
        """Compute probabilities and OOD scores; see `Network`."""
        probability, ood_score = self.session.run(None, {"image": images})[:2]  # the third equals the second
        return probability, ood_score

    def adaptation(self) -> dict[str, Any] | None:
        """Return the record of a local adaptation; see `Network`."""
        return self._adaptation


def _open(path: Path, device: str, style: SettingStyle) -> InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"{path} needs onnxruntime, which is not installed. Run pip install 'pneumo[export]' or, for a GPU, "
            "pip install onnxruntime-gpu."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = count_cores()  # the default ignores the CPU affinity of this process
    available = _CUDA in onnxruntime.get_available_providers()
    requirement = f"{style('device', 'cuda')} needs a GPU, and onnxruntime {onnxruntime.__version__}"
    if device == "cuda" and not available:
        raise HardwareError(
            f"{requirement} is built without GPU support. Use {style('device', 'cpu')}, or install "
            "onnxruntime-gpu instead."
        )
    # TensorFloat-32 would lose three digits of precision.
    providers = [(_CUDA, {"use_tf32": "0"}), (_CPU, {})] if available and device != "cpu" else [(_CPU, {})]
    try:
        # The fallback to the CPU would print a message. A provider with missing libraries is dropped in any case.
        session = onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:  # a dozen exception types without a common base class
        raise _unreadable(path, error) from error
    if device == "cuda" and _CUDA not in session.get_providers():
        raise HardwareError(
            f"{requirement} cannot use CUDA on this machine. Use {style('device', 'cpu')}, or install the CUDA and "
            "cuDNN versions that it was built for."
        )
    return session


def _unreadable(path: Path, reason: object) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read as a network ({short_line(reason)}): it is damaged, was altered, or needs a newer "
        "onnxruntime. Export the checkpoint again: pneumo export CHECKPOINT --output FILE.onnx."
    )


def _read_rules(session: InferenceSession, path: Path, verified: bool) -> Rules:
    """Read the rules from the metadata and check them against the network's inputs and outputs."""
    metadata = session.get_modelmeta().custom_metadata_map
    if SHA256 in metadata and not verified:
        raise _unreadable(path, f"it was altered after its export: its {SHA256} is not at the end of the file")
    try:
        rules = Rules.from_json(metadata[RULES])
    except KeyError as error:
        raise ConfigError(
            f"{path} was not exported by this version of pneumo: its metadata has no {RULES} with classes, image size "
            "and threshold. Export the checkpoint again: pneumo export CHECKPOINT --output FILE.onnx."
        ) from error
    except HyperparameterError as error:
        raise _unreadable(path, f"{RULES}: {error}") from error
    side = rules.image_size
    outputs = len(session.get_outputs())  # 2 in files of earlier versions
    if [value.shape[1:] for value in session.get_inputs()] != [[1, side, side]] or outputs not in (2, 3):
        raise _unreadable(path, f"it must have one input (batch, 1, {side}, {side}) and two or three outputs")
    if not verified:
        _warn_unverified(path.resolve(), path.stat().st_mtime_ns)
    return rules


def _read_adaptation(session: InferenceSession, path: Path) -> dict[str, Any] | None:
    text = session.get_modelmeta().custom_metadata_map.get(ADAPTATION)
    try:
        return None if text is None else parse_adaptation(text)
    except AdaptationError as error:
        raise _unreadable(path, f"{ADAPTATION}: {error}") from error


@cache  # one warning per path and modification time
def _warn_unverified(path: Path, modified: int) -> None:
    _log.warning("%s has no SHA-256, like all files of early versions: its integrity cannot be verified.", path)


def add_checksum(model: bytes) -> bytes:
    """Append the SHA-256 of a serialised ONNX model to it, as a metadata entry.

    Protocol buffers can be concatenated: repeated fields, such as the metadata, are merged.
    """
    return model + _metadata_entry(hashlib.sha256(model).hexdigest())


def verify_checksum(path: Path) -> bool:
    """Verify the SHA-256 at the end of a file; return False if there is none.

    Raises:
        ChecksumError: The SHA-256 differs.
        OSError: The file cannot be read.
    """
    digest, remaining = hashlib.sha256(), path.stat().st_size - len(_metadata_entry("0" * 64))
    if remaining < 0:
        return False
    with path.open("rb") as file:
        file.seek(remaining)
        end = file.read()
        if SHA256.encode() not in end:
            return False
        file.seek(0)
        while remaining > 0 and (chunk := file.read(min(_CHUNK_SIZE, remaining))):
            digest.update(chunk)
            remaining -= len(chunk)
    if end != _metadata_entry(digest.hexdigest()):
        raise ChecksumError(f"its SHA-256 differs from the stored {SHA256}")
    return True


def _metadata_entry(digest: str) -> bytes:
    """Encode a metadata entry: field 14 of a ModelProto, a StringStringEntryProto. All lengths are below 128."""
    key, value = SHA256.encode(), digest.encode()
    entry = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(value)]) + value
    return b"\x72" + bytes([len(entry)]) + entry
