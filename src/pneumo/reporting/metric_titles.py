"""Titles of metrics, and the order in which tables of a test list them."""

from __future__ import annotations

from pneumo.common.subtypes import SUBTYPES
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.subtypes import SUBTYPE_METRICS

TITLES = {name: metric.title for name, metric in (METRICS | SUBTYPE_METRICS).items()}


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
