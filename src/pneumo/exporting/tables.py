"""Tables that `pneumo export` prints."""

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
from rich.box import SIMPLE_HEAD

from pneumo.console import PlainTable
from pneumo.evaluation.answers import Predictions, predict_classes
from pneumo.evaluation.metrics import measure
from pneumo.prediction.network import Scores
from pneumo.prediction.rules import Rules


def speed_table(sizes: Mapping[str, int], taken: Mapping[int, Mapping[str, Sequence[float]]]) -> PlainTable:
    """Lay out networks' sizes in bytes, and their latencies: what `measure_latency` gives, by number of images."""
    heads = ("MB", *(f"{count} image{'s' * (count > 1)}, ms" for count in taken))
    rows = {
        name: [f"{size / 1e6:,.1f}", *(f"{1e3 * median(seconds[name]):,.1f}" for seconds in taken.values())]
        for name, size in sizes.items()
    }
    return _table("Size, and median latency in alternating rounds", heads, rows)


def accuracy_table(answers: Mapping[str, Scores], labels: Sequence[int], rules: Rules) -> PlainTable:
    """Lay out how well networks do on test films, and how many of those each takes for unlike its training images."""
    rows = {}
    for name, (probability, unlike) in answers.items():
        predicted = predict_classes(probability, rules.threshold)
        found = measure(Predictions(probability.astype(np.float64), np.array(labels), predicted))
        flagged = f"{(unlike > 1).sum()}" if rules.outliers else "not told"
        rows[name] = [f"{found['auroc']:.4f}", f"{found['accuracy']:.4f}", flagged]
    return _table(f"{len(labels)} test films", ("AUROC", "accuracy", "unlike"), rows)


def _table(title: str, heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> PlainTable:
    table = PlainTable(title=title, title_style="bold", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for head in heads:
        table.add_column(head, justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table
