"""Batch inference: the command `pneumo predict`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich

from pneumo.common.files import check_folder, check_output, refuse_inputs, write_output
from pneumo.common.terminal import track, warn
from pneumo.errors import ConfigError
from pneumo.inference.backend import Rules, as_flag
from pneumo.inference.inputs import find_inputs
from pneumo.inference.prediction import NOTICE, Prediction, show_path, to_csv, to_json, to_lines, to_terminal
from pneumo.inference.predictor import Predictor, load_predictor, warn_untested

if TYPE_CHECKING:
    from pneumo.inference.explain.overlays import OverlayFolder

_TABLES = (".csv", ".json", ".txt")  # an earlier such command may have written them into a folder that is read


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
    found = find_inputs(inputs)
    refuse_inputs(
        (("--json", json), ("--csv", csv)),
        [checkpoint, *(path for path in found if path.suffix.lower() not in _TABLES)],
    )
    paths = _leave_out(found, [path for path in (json, csv, explain) if path is not None])
    model = load_predictor(checkpoint, device, batch_size, as_flag)
    warn_untested(model.rules)
    overlays = None
    if explain is not None:
        from pneumo.inference.explain.overlays import OverlayFolder  # imports Matplotlib, which takes a second

        overlays = OverlayFolder(explain, model.network, paths)
    predictions = _predict(model, paths, overlays)
    if json is not None:
        write_output("--json", json, to_json(predictions, model.rules, checkpoint))
    if csv is not None:
        write_output("--csv", csv, to_csv(predictions, model.rules))
    drawn = overlays is None or overlays.finish()
    _print(predictions, model.rules, json is not None or csv is not None)
    return drawn and all(prediction.error is None for prediction in predictions)


def _leave_out(paths: list[Path], outputs: Sequence[Path]) -> list[Path]:
    """Leave out, and name, what an earlier such command has written into a folder that is read."""
    places = [Path(os.path.abspath(output)) for output in outputs]
    own = {path: None for path in paths if any(Path(os.path.abspath(path)).is_relative_to(place) for place in places)}
    if not own:
        return paths
    first = show_path(next(iter(own)))
    if len(own) == len(paths):
        raise ConfigError(
            f"All that is to be read lies where --json, --csv or --explain write ({first}): name another place for "
            "these."
        )
    more = f" and {len(own) - 1:,} more" if len(own) > 1 else ""
    warn(f"Not read, since this command writes there: {first}{more}.")
    return [path for path in paths if path not in own]


def _predict(model: Predictor, paths: Sequence[Path], overlays: OverlayFolder | None) -> list[Prediction]:
    predictions: list[Prediction] = []
    with track("Predicting", len(paths)) as advance:
        for batch in model.predict_batches(paths, keep_images=overlays is not None):
            predictions += batch.predictions
            if overlays is not None:
                overlays.add(batch)
            advance(len(predictions))
    return predictions


def _print(predictions: Sequence[Prediction], rules: Rules, written: bool) -> None:
    """Print the predictions, and on stderr what could not be read."""
    for prediction in predictions:
        if prediction.error is not None:
            warn(f"{show_path(prediction.path)} {prediction.error}")
    if rich.get_console().is_terminal:
        rich.print(to_terminal(predictions, rules, written))
        return
    warn(NOTICE)
    for line in to_lines(predictions):
        print(line)
