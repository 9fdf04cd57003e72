"""External validation: the command `pneumo evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import rich

from pneumo.common.files import check_output, write_output
from pneumo.common.terminal import print_line
from pneumo.data.selection import DataSelection
from pneumo.inference.backend import as_flag
from pneumo.inference.command_inputs import read_selection
from pneumo.inference.evaluate.evaluation import Evaluation, EvaluationOptions, evaluate
from pneumo.inference.evaluate.evaluation_records import to_csv, to_json
from pneumo.inference.evaluate.evaluation_terminal import to_terminal
from pneumo.inference.evaluate.recorded_sets import find_own_run, record_sets, require_own_weights
from pneumo.inference.predictor import load_predictor, warn_uncalibrated


@dataclass(frozen=True)
class OutputFiles:
    """Output files of an evaluation; None: not written."""

    json: Path | None = None
    csv: Path | None = None
    html: Path | None = None

    @property
    def options(self) -> list[tuple[str, Path | None]]:
        """Pairs of an option and its path."""
        return [("--json", self.json), ("--csv", self.csv), ("--html", self.html)]


def run_evaluate(
    checkpoint: Path,
    selection: DataSelection,
    options: EvaluationOptions,
    against: Path | None,
    outputs: OutputFiles,
    batch_size: int | None,
    device: str,
    record: bool = False,
) -> Evaluation:
    """Evaluate a network on labelled images, print the results, and write the requested files.

    Args:
        checkpoint: The network's file.
        selection: The labelled data.
        options: Options of the evaluation; `against` is replaced.
        against: File of another network, for a paired comparison.
        outputs: Output files.
        batch_size: Batch size; None: the fastest.
        device: auto, cpu or cuda.
        record: Whether to store the results in the run folder, for the leaderboard.

    Raises:
        ConfigError: An option is invalid or does not fit the data, or a file cannot be written. With `record`, the
            network is not the best checkpoint of a finished run.
        DataError: The data are invalid, or none of the images can be read.
        HardwareError: The device is not available.
    """
    for option, path in outputs.options:
        check_output(option, path)
    networks = [checkpoint, *([] if against is None else [against])]
    sets = read_selection(selection, outputs.options, networks)
    run = find_own_run(checkpoint) if record else None
    model = load_predictor(checkpoint, device, batch_size, as_flag)
    if run is not None:
        require_own_weights(run, model)
    warn_uncalibrated(model.rules)
    if against is not None:
        options = replace(options, against=load_predictor(against, device, batch_size, as_flag))
    evaluation = evaluate(model, sets, options, selection.split)
    _report(evaluation, outputs)
    for path in [] if run is None else record_sets(run, checkpoint, evaluation, sets):
        print_line(f"Wrote {path} and .csv for `pneumo report`.")
    return evaluation


def _report(evaluation: Evaluation, outputs: OutputFiles) -> None:
    """Write the requested files and print the results."""
    contents = {"--json": to_json, "--csv": to_csv, "--html": Evaluation.to_html}
    for option, path in outputs.options:
        if path is not None:
            write_output(option, path, contents[option](evaluation))
    rich.print(to_terminal(evaluation, [path for path in (outputs.html, outputs.json) if path is not None]))
    for _, path in outputs.options:
        if path is not None:
            print_line(f"Wrote {path}.")
