"""What `pneumo predict` does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich

from pneumo.console import warn
from pneumo.errors import ConfigError
from pneumo.hardware import count_cores
from pneumo.outputs import check_folder, check_output, refuse_inputs, write_output
from pneumo.prediction.documents import show_path, to_csv, to_json
from pneumo.prediction.inputs import find_inputs
from pneumo.prediction.network import Network, open_network
from pneumo.prediction.predictions import NOTICE, Prediction, predict
from pneumo.prediction.rules import Rules
from pneumo.prediction.terminal import to_lines, to_terminal
from pneumo.progress import track

_TABLES = (".csv", ".json", ".txt")  # an earlier such command may have written them into a folder that is read

if TYPE_CHECKING:
    from pneumo.prediction.explaining import OverlayFolder


def run_predict(
    checkpoint: Path,
    inputs: Sequence[str],
    json: Path | None,
    csv: Path | None,
    explain: Path | None,
    batch_size: int | None,
    device: str,
) -> bool:
    """Predict, print, and write what is asked for.

    Returns:
        Whether every file could be read, and its map, if asked for, be written.

    Raises:
        ConfigError: An input matches nothing, a file cannot be written, or there is no network in `checkpoint`.
        HardwareError: The device is not there.
    """
    check_output("--json", json)
    check_output("--csv", csv)
    if explain is not None:
        check_folder("--explain", explain)
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size} must be 1 or more films at once, such as --batch-size 16.")
    found = find_inputs(inputs)
    refuse_inputs(
        (("--json", json), ("--csv", csv)),
        [checkpoint, *(path for path in found if path.suffix.lower() not in _TABLES)],
    )
    paths = _leave_out(found, [path for path in (json, csv, explain) if path is not None])
    network = open_network(checkpoint, device)
    warn_untested(network.rules)
    overlays = None if explain is None else _open_overlays(explain, network, paths)
    predictions = _predict(network, paths, batch_size or network.batch_size, overlays)
    if json is not None:
        write_output("--json", json, to_json(predictions, network.rules, checkpoint))
    if csv is not None:
        write_output("--csv", csv, to_csv(predictions, network.rules))
    drawn = overlays is None or overlays.finish()
    _tell(predictions, network.rules, json is not None or csv is not None)
    return drawn and all(prediction.answer is not None for prediction in predictions)


def warn_untested(rules: Rules) -> None:
    """Say what a checkpoint cannot tell because its run has not decided it."""
    missing = [
        *(["which answers are uncertain"] if rules.margin is None else []),
        *(["which films do not look like chest radiographs"] if not rules.outliers else []),
    ]
    if missing:
        warn(
            f"This network does not tell {' or '.join(missing)}: its run has not decided that by validation images, as "
            "a whole run does at its end, for its checkpoints/best.ckpt."
        )


def _leave_out(paths: list[Path], outputs: Sequence[Path]) -> list[Path]:
    """Leave out, and name, what an earlier such command has written into a folder that is read."""
    places = [Path(os.path.abspath(output)) for output in outputs]
    own = [path for path in paths if any(Path(os.path.abspath(path)).is_relative_to(place) for place in places)]
    if own and len(own) < len(paths):
        more = f" and {len(own) - 1:,} more" if len(own) > 1 else ""
        warn(f"Not read, since this command writes there: {show_path(own[0])}{more}.")
        return [path for path in paths if path not in set(own)]
    if own:
        raise ConfigError(
            f"All that is to be read lies where --json, --csv or --explain write ({show_path(own[0])}): name another "
            "place for these."
        )
    return paths


def _open_overlays(folder: Path, network: Network, paths: Sequence[Path]) -> OverlayFolder:
    from pneumo.prediction.explaining import OverlayFolder  # Matplotlib and captum take two seconds

    return OverlayFolder(folder, network, paths)


def _predict(
    network: Network, paths: Sequence[Path], batch_size: int, overlays: OverlayFolder | None
) -> list[Prediction]:
    """Predict all files with a progress bar, and write overlays where they are asked for."""
    predictions: list[Prediction] = []
    with track("Predicting", len(paths)) as tell:
        for batch in predict(network, paths, batch_size, count_cores(), overlays is not None):
            predictions += batch.predictions
            if overlays is not None:
                overlays.add(batch)
            tell(len(predictions))
    return predictions


def _tell(predictions: Sequence[Prediction], rules: Rules, written: bool) -> None:
    """Print the answers, and on stderr what could not be read."""
    for prediction in predictions:
        if prediction.answer is None:
            warn(f"{show_path(prediction.path)} {prediction.error}")
    if rich.get_console().is_terminal:
        rich.print(to_terminal(predictions, rules, written))
        return
    warn(NOTICE)
    for line in to_lines(predictions):
        print(line)
