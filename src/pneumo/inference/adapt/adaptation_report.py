"""Terminal output and JSON of an adaptation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich
from rich.text import Text

from pneumo.common.terminal import PlainTable, print_line, warn
from pneumo.common.text import format_probability
from pneumo.data.image_notes import abbreviate
from pneumo.inference.evaluate.cohort import Cohort
from pneumo.inference.prediction import NOTICE, show_path
from pneumo.metrics.adaptation_effect import TITLES
from pneumo.metrics.sample_size import Requirement

_PARAMETERS = ("temperature", "intercept", "threshold", "margin")
_CRITERIA = {
    "observed_expected": "observed / expected",
    "slope": "calibration slope",
    "auroc": "AUROC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "net_benefit": "net benefit / prevalence",
}


def to_json(
    record: dict[str, Any], requirements: Sequence[Requirement], warnings: Sequence[str], checkpoint: Path, output: Path
) -> str:
    """Format the record of an adaptation, the numbers of images needed and the warnings as JSON."""
    content = {
        "notice": NOTICE,
        "checkpoint": show_path(checkpoint),
        "output": show_path(output),
        **record,
        "images_needed": [requirement._asdict() for requirement in requirements],
        "warnings": list(warnings),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def print_adaptation(
    record: dict[str, Any], cohort: Cohort, requirements: Sequence[Requirement], warnings: Sequence[str]
) -> None:
    """Print the operating point, metrics before and after, the numbers of images needed, and the warnings."""
    _warn_unused("unreadable", cohort.unreadable)
    _warn_unused("not used", cohort.skipped)
    positive = cohort.predictions.classes[1]
    target = "" if record["target"] is None else f" {record['target']:g}"
    print_line(
        f"{cohort.name}: {record['images']:,} images of {record['patients']:,} patients, {record['positives']:,} "
        f"{positive}; threshold rule {record['rule']}{target}"
    )
    rich.print()
    rich.print(_point_table(record))
    print_line(
        "The operating point is fitted to all images. A probability is sigmoid(logit / temperature + intercept), and "
        "an image is positive if it is above the threshold.",
        wrap=True,
    )
    rich.print()
    rich.print(_effect_table(record))
    print_line(
        f"After is cross-fitted: each image is predicted by an operating point fitted to the other patients "
        f"({record['folds']} folds). An adaptation does not change the ranking, so the AUROC stays the same.",
        wrap=True,
    )
    fraction = record["positives"] / record["images"]
    print_line(
        f"The new probabilities apply to populations with {100 * fraction:.0f} % {positive}, as in these images.",
        wrap=True,
    )
    rich.print()
    rich.print(_requirement_table(requirements))
    print_line("--width sets the wanted width for AUROC, sensitivity and specificity; the others are fixed.", wrap=True)
    for text in warnings:
        warn(text)


def _warn_unused(state: str, files: Sequence[tuple[str, str]]) -> None:
    if files:
        count = "1 file is" if len(files) == 1 else f"{len(files):,} files are"
        listed = abbreviate(f"{name} ({reason.rstrip('.')})" for name, reason in files)
        warn(f"{count} {state}: {listed}.")


def _point_table(record: dict[str, Any]) -> PlainTable:
    table = PlainTable("Operating point")
    table.add_column("")
    for part in ("before", "after"):
        table.add_column(part, justify="right")
    for name in _PARAMETERS:
        cells = [_format_parameter(name, record[part][name]) for part in ("before", "after")]
        table.add_row("uncertainty margin (logits)" if name == "margin" else name, *cells)
    return table


def _format_parameter(name: str, value: float | None) -> str:
    if value is None:
        return "not calibrated"
    return format_probability(value) if name == "threshold" else f"{value:.4f}"


def _effect_table(record: dict[str, Any]) -> PlainTable:
    table = PlainTable("Performance on these images, with 95 % intervals")
    table.add_column("")
    for part in ("before", "after", "change"):
        table.add_column(part, justify="right")
    metrics = record["metrics"]
    for name, title in TITLES.items():
        table.add_row(title, *(_format(metrics[part].get(name), part == "change") for part in metrics))
    return table


def _format(estimate: list[float] | None, signed: bool) -> Text:
    if estimate is None:
        return Text()
    value, low, high = (f"{number:+.3f}" if signed else f"{number:.3f}" for number in estimate)
    return Text(f"{value}\n{low} to {high}")


def _requirement_table(requirements: Sequence[Requirement]) -> PlainTable:
    table = PlainTable("Images needed to validate the adapted checkpoint (Riley et al., 2024)")
    table.add_column("95 % interval of")
    for header in ("wanted width", "images", "positive"):
        table.add_column(header, justify="right")
    for each in requirements:
        table.add_row(_CRITERIA[each.criterion], f"{each.width:g}", f"{each.images:,}", f"{each.positives:,}")
    return table
