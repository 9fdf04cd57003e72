"""Terminal summary of a run: its results and the paths of its files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

import rich

from pneumo.common.terminal import PlainTable, print_line
from pneumo.metrics.subtypes import NO_IMAGE
from pneumo.metrics.summary import reported_metrics
from pneumo.runs.results import Value, recorded_estimate, run_title
from pneumo.runs.status import EVENTS

_log = logging.getLogger(__name__)
# What a run's state means; also for the leaderboard and the reports of a run.
STATE_NOTES = {
    "collapsed": "every test image got the same predicted class; the accuracy is just the proportion of that class.",
    "partial": "some test images were skipped; do not report these numbers as a result.",
}


def report(folder: Path, results: Mapping[str, Value]) -> None:
    """Print the results and the paths of the run's files; warn if the run is partial or collapsed."""
    if results["status"] == "partial":
        _log.warning("PARTIAL: %s", STATE_NOTES["partial"])
    if results["collapsed"]:
        advice = "Lower optimizer.lr, train longer, or check train/loss in TensorBoard."
        _log.warning("COLLAPSED: %s %s", STATE_NOTES["collapsed"], advice)
    rich.print(_table(results))
    curves = [("curves", f"tensorboard --logdir {folder}")] if any(folder.glob(f"*{EVENTS}")) else []
    for name, location in (
        ("results", folder / "results.json"),
        ("predictions", folder / "predictions.csv"),
        ("checkpoint", folder / "checkpoints" / "best.ckpt"),
        ("log", folder / "train.log"),
        *curves,
    ):
        print_line(f"{name:<12} {location}")


def _table(results: Mapping[str, Value]) -> PlainTable:
    table = PlainTable(run_title(results))
    table.add_column("test")
    for column in ("", "95\u00a0% interval"):
        table.add_column(column, justify="right")
    table.add_column("run", style="dim")
    table.add_column("", justify="right", style="dim")
    left = []
    for name, title in reported_metrics(subtype="  {}").items():
        value, low, high = recorded_estimate(results, name)
        if value != NO_IMAGE:
            left.append((title, f"{value:.4f}", f"{low:.3f} to {high:.3f}"))
    right = [
        ("train accuracy", f"{results['train_accuracy']:.4f}"),
        ("best epoch", f"{results['best_epoch']} of {results['epochs']}"),
        ("trainable parameters", f"{results['parameters_trainable']:,}"),
        ("training time", f"{results['train_seconds']:.0f} s"),
        ("images per second", f"{results['samples_per_second']:.0f}"),
    ]
    for first, second in zip_longest(left, right, fillvalue=()):
        table.add_row(*first, *second)
    return table
