"""Summary of a test: its counts, and its metrics with their intervals, by the keys of results.json; their titles."""

from __future__ import annotations

import numpy as np

from pneumo.common import SUBTYPES
from pneumo.metrics.definitions import METRICS, estimates
from pneumo.metrics.predictions import Labels, Predictions
from pneumo.metrics.subtypes import SUBTYPE_METRICS

TITLES = {name: metric.title for name, metric in (METRICS | SUBTYPE_METRICS).items()}


def summarise(predictions: Predictions) -> dict[str, float]:
    """Compute what results.json holds of a test.

    Where a metric or its interval needs a class or a subtype that is absent, the interval is the whole range.
    """
    results = count_outcomes(predictions.label, predictions.predicted)
    for name, estimate in estimates(predictions, METRICS | SUBTYPE_METRICS).items():
        results.update(zip(estimate_keys(name), estimate, strict=True))
    return results


def count_outcomes(label: Labels, predicted: Labels) -> dict[str, float]:
    """Count a test's predictions, (N,), with all classes but the first as positive ones."""
    positive, detected = label > 0, predicted > 0
    return {
        "test_true_positives": int((positive & detected).sum()),
        "test_false_positives": int((~positive & detected).sum()),
        "test_true_negatives": int((~positive & ~detected).sum()),
        "test_false_negatives": int((positive & ~detected).sum()),
        "collapsed": len(np.unique(predicted)) == 1,
    }


def estimate_keys(name: str) -> tuple[str, str, str]:
    """Return the keys of a metric of the test, and of the ends of its interval."""
    return f"test_{name}", f"test_{name}_ci_low", f"test_{name}_ci_high"


def reported_metrics(*first: str, subtype: str) -> dict[str, str]:
    """Return the titles of a table's metrics by their names, in the order of its rows.

    These are the metrics named `first`, then all others with a rank. Below the sensitivity follows that to each
    subtype, whose title is `subtype` with the subtype's name in the place of {}.
    """
    ranked = [name for name, metric in METRICS.items() if metric.rank is not None]
    titles = {}
    for name in dict.fromkeys((*first, *ranked)):
        titles[name] = TITLES[name]
        if name == "sensitivity":
            titles |= {f"sensitivity_{each}": subtype.format(each) for each in SUBTYPES}
    return titles
