"""Batch inference: the command `pneumo predict`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich

from pneumo.common.files import check_folder, check_output, check_overwrites, write_output
from pneumo.common.terminal import track, warn
from pneumo.errors import ConfigError
from pneumo.inference.backend import Rules, as_flag
from pneumo.inference.inputs import find_inputs
from pneumo.inference.prediction import NOTICE, Prediction, show_path, to_csv, to_json, to_lines, to_terminal
from pneumo.inference.predictor import Predictor, load_predictor, warn_uncalibrated
from pneumo.models.adaptation_record import describe_adaptation

if TYPE_CHECKING:
    from pneumo.inference.explain.overlays import OverlayFolder

_TABLES = (".csv", ".json", ".txt")  # suffixes of files that an earlier call may have written to an input folder


def run_predict(
    checkpoint: Path,
    inputs: Sequence[str],
    json: Path | None,
    csv: Path | None,
    explain: Path | None,
    batch_size: int | None,
    device: str,
) -> bool:
    """Predict images, print the predictions, and write the requested outputs.

    Returns:
        Whether every file could be read and every requested saliency map could be written.

    Raises:
        ConfigError: An input matches no file, an output cannot be written, or `checkpoint` is not a network.
        HardwareError: The device is not available.
    """
    check_output("--json", json)
    check_output("--csv", csv)
    if explain is not None:
        check_folder("--explain", explain)
    files = find_inputs(inputs)
    check_overwrites(
        (("--json", json), ("--csv", csv)),
        [checkpoint, *(path for path in files if path.suffix.lower() not in _TABLES)],
    )
    paths = _exclude_outputs(files, [path for path in (json, csv, explain) if path is not None])
    model = load_predictor(checkpoint, device, batch_size, as_flag)
    warn_uncalibrated(model.rules)
    if (adaptation := model.network.adaptation()) is not None:
        warn(describe_adaptation(adaptation))
    overlays = None
    if explain is not None:
        from pneumo.inference.explain.overlays import OverlayFolder  # imports Matplotlib, which takes a second

        overlays = OverlayFolder(explain, model.network, paths)
    predictions = _predict(model, paths, overlays)
    if json is not None:
        write_output("--json", json, to_json(predictions, model.rules, checkpoint))
    if csv is not None:
        write_output("--csv", csv, to_csv(predictions, model.rules))
    complete = overlays is None or overlays.finish()
    _print(predictions, model.rules, json is not None or csv is not None)
    return complete and all(prediction.error is None for prediction in predictions)


def _exclude_outputs(paths: list[Path], outputs: Sequence[Path]) -> list[Path]:
    """Exclude files that an earlier call wrote into an input folder, with a warning."""
    targets = [Path(os.path.abspath(output)) for output in outputs]
    absolute = {path: Path(os.path.abspath(path)) for path in paths}
    excluded = {path: None for path in paths if any(map(absolute[path].is_relative_to, targets))}
    if not excluded:
        return paths
    first = show_path(next(iter(excluded)))
    if len(excluded) == len(paths):
        raise ConfigError(
            f"All input files are outputs of --json, --csv or --explain, such as {first}. Use another output path."
        )
    more = f" and {len(excluded) - 1:,} more" if len(excluded) > 1 else ""
    warn(f"Skipping files where this command writes its outputs: {first}{more}.")
    return [path for path in paths if path not in excluded]


def _predict(model: Predictor, paths: Sequence[Path], overlays: OverlayFolder | None) -> list[Prediction]:
    predictions: list[Prediction] = []
    with track("Predicting", len(paths)) as update:
        for batch in model.predict_batches(paths, keep_previews=overlays is not None):
            predictions += batch.predictions
            if overlays is not None:
                overlays.add(batch)
            update(len(predictions))
    return predictions


def _print(predictions: Sequence[Prediction], rules: Rules, saved: bool) -> None:
    """Print predictions to stdout, and errors of unreadable files to stderr."""
    for prediction in predictions:
        if prediction.error is not None:
            warn(f"{show_path(prediction.path)} {prediction.error}")
    if rich.get_console().is_terminal:
        rich.print(to_terminal(predictions, rules, saved))
        return
    warn(NOTICE)
    for line in to_lines(predictions):
        print(line)
