"""File formats of exported networks, with their requirements and limits.

To add a format, add an entry to `FORMATS`. Import its libraries inside its functions, so that other formats work
without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.inference.backend import Images, Network, SettingStyle

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class Format:
    """A file format of exported networks.

    Attributes:
        name: Name of the format.
        file: Noun phrase for a file in this format, with an article.
        runtime: Name of the software that runs such files.
        write: Writes a program and its metadata to a path.
        open: Loads a file on a device (cpu, cuda or auto); errors show settings in the given style.
        quantise: Reads a file and writes an int8 version of it, using calibration images; None if unsupported.
        packages: Packages that writing requires in addition to PyTorch.
        max_bytes: Maximum size of the weights; None if unlimited.
        load_error: Reason why `load_model` rejects such files, as a predicate with a fix; None if it loads them.
    """

    name: str
    file: str
    runtime: str
    write: Callable[[ExportedProgram, Mapping[str, str], Path], None]
    open: Callable[[Path, str, SettingStyle], Network]
    quantise: Callable[[Path, Path, Images, Mapping[str, str]], None] | None = None
    packages: tuple[str, ...] = ()
    max_bytes: int | None = None
    load_error: str | None = None


def _write_onnx(program: ExportedProgram, metadata: Mapping[str, str], path: Path) -> None:
    from pneumo.inference.export.onnx_writer import write_onnx

    write_onnx(program, metadata, path)


def _open_onnx(path: Path, device: str, style: SettingStyle) -> Network:
    from pneumo.inference.onnx_backend import OnnxNetwork

    return OnnxNetwork(path, device, style)


def _quantise_onnx(source: Path, target: Path, images: Images, metadata: Mapping[str, str]) -> None:
    from pneumo.inference.export.quantisation import quantise

    quantise(source, target, images, metadata)


def _write_program(program: ExportedProgram, metadata: Mapping[str, str], path: Path) -> None:
    from pneumo.inference.export.torch_program import write_program

    write_program(program, metadata, path)


def _open_program(path: Path, device: str, style: SettingStyle) -> Network:
    from pneumo.inference.export.torch_program import ProgramNetwork

    return ProgramNetwork(path)  # supports the CPU only


# By file suffix.
FORMATS = {
    ".onnx": Format(
        name="ONNX",
        file="an ONNX file",
        runtime="ONNX Runtime and other runtimes",
        write=_write_onnx,
        open=_open_onnx,
        quantise=_quantise_onnx,
        packages=("onnx", "onnxscript", "onnxruntime"),
        max_bytes=2**31 - 2**24,  # a file is limited to 2 GiB, and needs some space for the graph
    ),
    ".pt2": Format(
        name="PyTorch programs",
        file="a PyTorch program",
        runtime="PyTorch",
        write=_write_program,
        open=_open_program,
        load_error=(
            "cannot be loaded by pneumo, because loading a .pt2 file can execute arbitrary code. Use the checkpoint "
            "that it was exported from, or export that checkpoint as .onnx. In your own code, use torch.export.load."
        ),
    ),
}
