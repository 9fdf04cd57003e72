"""Test summary by the keys of results.json: counts and metrics with confidence intervals; metric titles."""

from __future__ import annotations

import numpy as np

from pneumo.common import SUBTYPES
from pneumo.metrics.definitions import METRICS, estimates
from pneumo.metrics.predictions import Labels, Predictions
from pneumo.metrics.subtypes import SUBTYPE_METRICS

TITLES = {name: metric.title for name, metric in (METRICS | SUBTYPE_METRICS).items()}


def summarise(predictions: Predictions) -> dict[str, float]:
    """Compute the test results that results.json stores.

    If a metric or its interval requires a class or subtype that is absent, the interval is the whole range.
    """
    results = count_outcomes(predictions.label, predictions.predicted)
    for name, estimate in estimates(predictions, METRICS | SUBTYPE_METRICS).items():
        results.update(zip(estimate_keys(name), estimate, strict=True))
    return results


def count_outcomes(label: Labels, predicted: Labels) -> dict[str, float]:
    """Count true and false positives and negatives from (N,) labels and predictions; only class 0 is negative."""
    positive, detected = label > 0, predicted > 0
    return {
        "test_true_positives": int((positive & detected).sum()),
        "test_false_positives": int((~positive & detected).sum()),
        "test_true_negatives": int((~positive & ~detected).sum()),
        "test_false_negatives": int((positive & ~detected).sum()),
        "collapsed": len(np.unique(predicted)) == 1,
    }


def estimate_keys(name: str) -> tuple[str, str, str]:
    """Return the keys of a test metric and of the ends of its confidence interval."""
    return f"test_{name}", f"test_{name}_ci_low", f"test_{name}_ci_high"


def reported_metrics(*first: str, subtype: str | None = None) -> dict[str, str]:
    """Return titles by metric name, in the order of the rows of a table.

    The metrics in `first` are followed by all others with a rank. The sensitivity is followed by the sensitivity for
    each subtype. `subtype` replaces their titles: a format string, where {} is the name of the subtype.
    """
    ranked = [name for name, metric in METRICS.items() if metric.rank is not None]
    titles = {}
    for name in dict.fromkeys((*first, *ranked)):
        titles[name] = TITLES[name]
        if name == "sensitivity":
            for each in SUBTYPES:
                key = f"sensitivity_{each}"
                titles[key] = TITLES[key] if subtype is None else subtype.format(each)
    return titles
