"""External sets recorded in the run folder of the evaluated checkpoint, for the leaderboard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pneumo.common.terminal import print_line
from pneumo.data.labelled_images import LabelledSet
from pneumo.errors import ConfigError
from pneumo.inference.batch_predictor import BatchPredictor
from pneumo.inference.evaluate.evaluation_results import EvaluationResults
from pneumo.inference.evaluate.performance import defined_estimates
from pneumo.inference.evaluate.reference import is_trained_by
from pneumo.inference.export.formats import FORMATS
from pneumo.metrics.predictions import Predictions
from pneumo.runs.external_test_rules import METRIC_NAMES
from pneumo.runs.external_tests import ExternalTest, prepare_external_folder, read_external_tests, write_external_test
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.results import read_finished, read_results


def find_own_run(checkpoint: Path) -> Path:
    """Return the finished run whose checkpoints/best.ckpt a file is, and create its folder of external tests.

    Raises:
        ConfigError: The file is not the best checkpoint of a finished run, or the folder cannot be written.
    """
    if checkpoint.suffix.lower() in FORMATS:
        raise _unrecordable(checkpoint, "is an exported file, which belongs to no run")
    for path in (checkpoint.absolute(), checkpoint.resolve()):
        if path.parts[-2:] == ("checkpoints", "best.ckpt"):
            run = path.parents[1]
            if read_results(run) is None:
                raise _unrecordable(checkpoint, f"belongs to a run that has not finished: {run} has no results.json")
            prepare_external_folder(run)
            return run
    raise _unrecordable(checkpoint, "is another file")


def require_own_weights(run: Path, model: BatchPredictor) -> None:
    """Raise a ConfigError unless a run trained a network that was not adapted since."""
    path = Path() if model.path is None else model.path
    if model.network.adaptation() is not None:
        raise _unrecordable(path, "was adapted to another site")
    predictions = read_predictions(run, read_finished(run))
    if set(filter(None, predictions.classes)) - set(model.rules.classes):
        raise _unrecordable(path, f"has other classes than {run / 'predictions.csv'}")
    if not is_trained_by(run, model, predictions):
        raise _unrecordable(path, f"has other weights: its internal test differs from {run / 'predictions.csv'}")


def record_sets(
    run: Path, checkpoint: Path, evaluation: EvaluationResults, sets: Sequence[LabelledSet]
) -> Iterator[Path]:
    """Record each evaluated set in the run folder, and yield the paths of the JSON files.

    Images are named as in their own set, so that sets have the same record whether they were evaluated together or not.
    Sets without a readable image are left out.
    """
    rules, content_hash = evaluation.rules, _hash_checkpoint(checkpoint)
    earlier = {test.name: test.predictions.paths for test in read_external_tests(run)[0]}
    for name, predictions in _split(evaluation, sets):
        if set(earlier.get(name, predictions.paths)) != set(predictions.paths):
            print_line(f"Replacing the record of {name}, which had other images.")
        test = ExternalTest(
            name=name,
            split=evaluation.split,
            predictions=predictions,
            metrics=defined_estimates(predictions, METRIC_NAMES),
            threshold=None if rules.positive_class is None else rules.threshold,
            checkpoint_hash=content_hash,
        )
        yield write_external_test(run, test)


def _split(evaluation: EvaluationResults, sets: Sequence[LabelledSet]) -> Iterator[tuple[str, Predictions]]:
    """Yield name and predictions of each set; the cohort has the readable images of all sets in their order."""
    files, start = [image.file for image in evaluation.cohort.images], 0
    for each in sets:
        index, paths = [], []
        for image in each.images:
            if start < len(files) and image.file is files[start]:
                index.append(start)
                paths.append(image.name)
                start += 1
        if index:
            part = evaluation.cohort.predictions.take(np.array(index, np.int64))
            yield each.name, replace(part, paths=tuple(paths))


def _hash_checkpoint(path: Path) -> str:
    from pneumo.models.checkpoint_reader import DIGEST, hash_checkpoint, read_checkpoint  # imports torch

    content = read_checkpoint(path)
    return str(content.get(DIGEST) or hash_checkpoint(content))


def _unrecordable(checkpoint: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"--record stores the results in the run folder, so it requires checkpoints/best.ckpt of a finished run, but "
        f"{checkpoint} {reason}. Use such a checkpoint, or omit --record."
    )
