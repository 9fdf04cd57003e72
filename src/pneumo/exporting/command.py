"""The command `pneumo export`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import rich

from pneumo.checkpoints import read_checkpoint
from pneumo.console import tell
from pneumo.errors import ConfigError
from pneumo.exporting.checked import ALLOWED, FORMATS, write_checked
from pneumo.exporting.films import Films, draw_films
from pneumo.exporting.formats import describe
from pneumo.exporting.latency import measure_latency
from pneumo.exporting.parity import score
from pneumo.exporting.tables import accuracy_table, speed_table
from pneumo.files import atomic_path
from pneumo.outputs import check_output, refuse_inputs, unwritable
from pneumo.prediction.checkpoint import CheckpointNetwork
from pneumo.prediction.exported import OnnxNetwork
from pneumo.prediction.network import Network
from pneumo.temporaries import temporary_folder

_NEEDED = ("onnx", "onnxscript", "onnxruntime")  # for ONNX
_PHANTOMS, _FILMS, _CALIBRATION = 32, 100, 256
_BATCHES = (1, 32)


def run_export(checkpoint: Path, output: Path, int8: bool, data: Path | None) -> None:
    """Write a checkpoint's network to a file of its own, check that, and print what came of it.

    Args:
        checkpoint: Of a classifier.
        output: The file, whose suffix names the format: .onnx or .pt2.
        int8: Quantise it, and measure on the test films what that loses.
        data: A data set, whose films serve where phantoms would otherwise.

    Raises:
        ConfigError: The checkpoint or the output is none, or the network cannot be exported.
        DataError: There is no such data set.
    """
    _check(output, int8, data)
    refuse_inputs([("--output", output)], [checkpoint])
    network = CheckpointNetwork(checkpoint)
    rules = network.rules
    source = None if data is None else Films(data, read_checkpoint(checkpoint), rules)
    shown = source.load("train", _FILMS)[0] if source else draw_films(_PHANTOMS, rules)
    with _written(output) as temporary, temporary_folder(output.parent) as folder:
        path = folder / output.name if int8 else temporary
        tell(f"Exporting {rules.name}: a minute or more for large networks")
        exported, found = write_checked(network, checkpoint, shown, path)
        tell(
            f"Largest differences on {len(shown)} films: {found.probability:.1e} in a probability "
            f"({ALLOWED.probability:g} is allowed), {found.unlike:.1e} of a score of unlike images ({ALLOWED.unlike:g})"
        )
        plain, small = f"{output.suffix}, float32", f"{output.suffix}, int8"
        networks: dict[str, Network] = {"checkpoint in PyTorch": network, plain: exported}
        sizes = {"checkpoint in PyTorch": checkpoint.stat().st_size, plain: path.stat().st_size}
        if int8 and source:
            from pneumo.exporting.quantisation import quantise  # imports onnx

            tell("Quantising to int8")
            quantise(path, temporary, source.load("train", _CALIBRATION)[0], describe(checkpoint, rules))
            networks[small], sizes[small] = OnnxNetwork(temporary), temporary.stat().st_size
        tell("Measuring latencies")
        rich.print(speed_table(sizes, {count: measure_latency(networks, shown, count) for count in _BATCHES}))
        if int8 and source:
            tell("Measuring on the test films what int8 loses")
            films, labels = source.load("test")
            rich.print(accuracy_table({name: score(networks[name], films) for name in (plain, small)}, labels, rules))
    tell(f"Wrote {output}, which is no medical device")


def _check(output: Path, int8: bool, data: Path | None) -> None:
    """Refuse what cannot work before minutes are spent."""
    if output.suffix not in FORMATS:
        raise ConfigError(
            f"--output {output} must end in .onnx, which onnxruntime and others run, or in .pt2, which PyTorch does, "
            "such as --output network.onnx."
        )
    if int8 and data is None:
        raise ConfigError(
            "--int8 is calibrated on training films and measured on test films: name their data set as --data ROOT, a "
            "folder with train/ and test/."
        )
    if int8 and output.suffix != ".onnx":
        raise ConfigError(f"--int8 is for ONNX, and --output {output} is not: name a file that ends in .onnx.")
    if output.suffix == ".onnx" and (missing := [name for name in _NEEDED if find_spec(name) is None]):
        raise ConfigError(
            f"Writing ONNX needs {', '.join(missing)}, which this Python lacks: pip install 'pneumo[export]', or take "
            "--output FILE.pt2, which needs nothing more."
        )
    check_output("--output", output)


@contextmanager
def _written(output: Path) -> Iterator[Path]:
    try:
        with atomic_path(output) as temporary:
            yield temporary
    except OSError as error:
        raise unwritable("--output", output, error) from error
