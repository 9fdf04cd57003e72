"""Formats of exported networks: how each is written and opened, what it needs, and its limits.

An entry in `FORMATS` adds a format. Its libraries are imported when it is used.
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
    """A format of exported networks.

    Attributes:
        name: Of the format.
        file: A file of it, with its article.
        runners: What runs such files, with the verb.
        write: Writes a program and its metadata to a path.
        open: Opens a file on a device (cpu, cuda or auto); errors name settings in the given style.
        quantise: Writes a file again with layers in 8 bits, given images for calibration; None: it cannot be done.
        packages: What writing needs besides PyTorch.
        most_bytes: The largest weights that a file holds; None: any.
        refusal: Why `load_model` does not open such files, as a predicate; None: it does.
    """

    name: str
    file: str
    runners: str
    write: Callable[[ExportedProgram, Mapping[str, str], Path], None]
    open: Callable[[Path, str, SettingStyle], Network]
    quantise: Callable[[Path, Path, Images, Mapping[str, str]], None] | None = None
    packages: tuple[str, ...] = ()
    most_bytes: int | None = None
    refusal: str | None = None


def _write_onnx(program: ExportedProgram, metadata: Mapping[str, str], path: Path) -> None:
    from pneumo.inference.export.onnx_writer import write_onnx

    write_onnx(program, metadata, path)


def _open_onnx(path: Path, device: str, style: SettingStyle) -> Network:
    from pneumo.inference.onnx_backend import OnnxNetwork

    return OnnxNetwork(path, device, style)


def _quantise_onnx(source: Path, target: Path, films: Images, metadata: Mapping[str, str]) -> None:
    from pneumo.inference.export.quantisation import quantise

    quantise(source, target, films, metadata)


def _write_program(program: ExportedProgram, metadata: Mapping[str, str], path: Path) -> None:
    from pneumo.inference.export.torch_program import write_program

    write_program(program, metadata, path)


def _open_program(path: Path, device: str, style: SettingStyle) -> Network:
    from pneumo.inference.export.torch_program import ProgramNetwork

    return ProgramNetwork(path)  # on the CPU


# By the suffix of their files.
FORMATS = {
    ".onnx": Format(
        name="ONNX",
        file="an ONNX file",
        runners="onnxruntime and others run",
        write=_write_onnx,
        open=_open_onnx,
        quantise=_quantise_onnx,
        packages=("onnx", "onnxscript", "onnxruntime"),
        most_bytes=2**31 - 2**24,  # a file has less than 2 GiB, and a little else is in it
    ),
    ".pt2": Format(
        name="PyTorch programs",
        file="a PyTorch program",
        runners="PyTorch does",
        write=_write_program,
        open=_open_program,
        refusal=(
            "is for programs of your own (torch.export.load): opening such a file runs whatever code it holds, so "
            "pneumo does not. Give the checkpoint that it was made of, or export that as .onnx."
        ),
    ),
}
