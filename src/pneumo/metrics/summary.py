"""Summary of a test: its counts, and its metrics with their intervals, by the keys of results.json."""

from __future__ import annotations

import numpy as np

from pneumo.metrics.definitions import METRICS, estimates
from pneumo.metrics.predictions import Labels, Predictions
from pneumo.metrics.subtypes import SUBTYPE_METRICS


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
