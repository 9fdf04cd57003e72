"""Outputs of a stress test: terminal table, JSON records, figure and one sentence."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from pneumo.common.terminal import PlainTable
from pneumo.data.corruptions import CORRUPTIONS, SEVERITIES
from pneumo.inference.evaluate.stress import StressCondition, StressTest
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.summary import TITLES
from pneumo.reporting.figures.stress_figure import draw_stress


def to_records(test: StressTest) -> dict[str, Any]:
    """Return a stress test as JSON values; what cannot be computed is null."""
    return {
        "seed": test.seed,
        "images": test.images,
        "images_of_set": test.total,
        "clean": _record(test.clean),
        "mean": _flatten(test.means),
        "mean_by_severity": [
            {"severity": severity, **_flatten(means)} for severity, means in enumerate(test.severity_means, 1)
        ],
        "mean_by_corruption": [
            {"corruption": name, **_flatten(means)} for name, means in test.corruption_means.items()
        ],
        "worst": _record(test.worst),
        "conditions": [_record(condition) for condition in test.conditions],
    }


def stress_table(test: StressTest) -> Table:
    """Build a table of the main metric by corruption and severity; the worst condition is bold."""
    metric, worst = test.main_metric, test.worst
    table = PlainTable(
        f"{TITLES[metric]} under corruptions, severity 1 to {SEVERITIES}", padding=(0, 1, 0, 0), show_edge=False
    )
    table.add_column("corruption", no_wrap=True)
    for header in (*map(str, range(1, SEVERITIES + 1)), "mean"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, corruption in CORRUPTIONS.items():
        conditions = [test.condition(name, severity) for severity in range(1, SEVERITIES + 1)]
        cells = [Text(f"{each.estimates[metric].value:.3f}", "bold" if each is worst else "") for each in conditions]
        table.add_row(corruption.title, *cells, f"{test.corruption_means[name][metric].value:.3f}")
    means = [f"{means[metric].value:.3f}" for means in test.severity_means]
    table.add_section()
    table.add_row("mean", *means, f"{test.means[metric].value:.3f}")
    return table


def describe_stress(test: StressTest) -> str:
    """Describe clean, mean and worst performance in two or three sentences."""
    metric, worst = test.main_metric, test.worst
    clean, mean = test.clean.estimates[metric].describe(), test.means[metric].describe()
    sample = "" if test.images == test.total else f", sampled by patient from {test.total:,}"
    drop = f" The paired drop is {worst.auroc_drop.describe()}." if worst.auroc_drop is not None else ""
    return (
        f"On {test.images:,} images{sample}, the {TITLES[metric]} is {clean} without corruption and "
        f"{mean} on average over {len(test.conditions)} conditions. The worst is "
        f"{CORRUPTIONS[worst.corruption].title}, severity {worst.severity}: {worst.estimates[metric].describe()}.{drop}"
    )


def draw_stress_test(test: StressTest) -> Figure:
    """Plot the main metric against the severity of each corruption."""
    metric = test.main_metric
    corrupted = {
        name: [test.condition(name, severity).estimates[metric] for severity in range(1, SEVERITIES + 1)]
        for name in CORRUPTIONS
    }
    title = f"{test.name}: stress test on {test.images:,} images"
    return draw_stress(test.clean.estimates[metric], corrupted, TITLES[metric], title)


def _record(condition: StressCondition) -> dict[str, Any]:
    return {
        "corruption": condition.corruption or None,
        "severity": condition.severity,
        **_flatten(condition.estimates),
        **_flatten({"auroc_drop": condition.auroc_drop}),
        "out_of_distribution": condition.out_of_distribution,
    }


def _flatten(estimates: dict[str, Estimate] | dict[str, Estimate | None]) -> dict[str, float | None]:
    """Return value and interval ends of estimates under flat keys."""
    flat: dict[str, float | None] = {}
    for name, estimate in estimates.items():
        ends = (None, None, None) if estimate is None else estimate
        flat.update(zip((name, f"{name}_ci_low", f"{name}_ci_high"), ends, strict=True))
    return flat
