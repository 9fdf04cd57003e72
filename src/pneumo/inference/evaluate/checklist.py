"""Reporting checklist: which items of STARD, CLAIM and TRIPOD+AI an evaluation fills, and which the author must write.

The items are in `reporting/templates/checklist.csv`, shortened; the published lists have the full wording. Items marked
partly require more than an evaluation contains. Sources:

- STARD 2015: P. M. Bossuyt et al., BMJ 2015;351:h5527, table 1.
- CLAIM 2024 update: A. S. Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300.
- TRIPOD+AI: G. S. Collins et al., BMJ 2024;385:e078378, table 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from string import Formatter
from typing import Literal, NamedTuple

from pneumo.common.plain_data import parse_csv

DOIS = {
    "STARD 2015": "10.1136/bmj.h5527",
    "CLAIM 2024": "10.1148/ryai.240300",
    "TRIPOD+AI 2024": "10.1136/bmj-2023-078378",
}
# Facts that entries can contain: the beginning of a sentence each, without the full stop.
FACTS = {
    "calibration": "calibration intercept, slope and observed / expected with intervals",
    "characteristics": "distribution of age, sex, view and other columns",
    "checkpoint": "file name and hash of the network",
    "class_counts": "number of images of each class",
    "comparison_method": "how classifiers or groups were compared",
    "cross_table": "true and false positives and negatives",
    "data": "names of the evaluated data sets",
    "decision_curve": "net benefit against treating all and none",
    "flow": "files found, skipped, unreadable and evaluated",
    "generalization": "loss from the internal test to the external set, by ranking and threshold",
    "images": "number of evaluated images",
    "imbalance": "class weights or sampling in training",
    "initialization": "initial weights of the network",
    "internal_metrics": "metrics of the internal test",
    "interval_methods": "how confidence intervals were computed, and that patients are clusters",
    "labels": "origin of the labels",
    "leakage": "near-duplicates of training images",
    "likelihood_ratios": "likelihood ratios with intervals",
    "metric_names": "names of the metrics",
    "metrics": "metrics with intervals",
    "missing": "handling of missing patients, labels and other columns",
    "model": "architecture and classes of the network",
    "model_selection": "how the checkpoint was selected",
    "ood": "fraction of out-of-distribution images",
    "patients": "number of patients",
    "plots": "names of the figures",
    "predictive_values": "PPV and NPV at the stated prevalences",
    "preprocessing": "size, crop and grey scale of the network's input",
    "site_metrics": "main metrics by site",
    "sites": "number and names of sites",
    "skipped": "entries of the data that were not used, by reason",
    "software": "versions of pneumo, Python and the backend",
    "stress": "mean and worst performance under corruptions",
    "subgroup_method": "which subgroups were compared, and the correction for multiple tests",
    "subgroups": "metrics by subgroup",
    "threshold": "threshold of the positive class",
    "threshold_origin": "how and on which images the threshold was selected; continues a sentence",
    "training": "optimizer, epochs and augmentation",
    "training_data": "data set and sizes of training, validation and test",
    "uncertain": "number of uncertain predictions and how they were handled",
    "unreadable": "number of unreadable files and how they were handled",
    "updating": "how the network was recalibrated for this site",
    "warnings": "warnings of the evaluation",
}


State = Literal["filled", "partly", "gap"]


class ChecklistItem(NamedTuple):
    """An item of a guideline with what an evaluation provides for it."""

    guideline: str  # key of `DOIS`
    number: str  # published number, such as 12a
    text: str  # the item, shortened
    entry: str  # empty: the author must write it
    state: State = "gap"  # filled; partly: the author must complete the entry; gap: no entry


def build_checklist(facts: Mapping[str, str]) -> list[ChecklistItem]:
    """Fill the items of all guidelines with facts.

    A sentence of an entry is included if all its facts are given. Items without any sentence are gaps.

    Args:
        facts: Text by key of `FACTS`; empty texts count as missing.

    Raises:
        ValueError: A key is not in `FACTS`.
    """
    if unknown := sorted(facts.keys() - FACTS.keys()):
        raise ValueError(f"unknown facts: {', '.join(unknown)}")
    given = {name: text for name, text in facts.items() if text}
    return [
        ChecklistItem(guideline, number, text, entry, ("partly" if is_part else "filled") if entry else "gap")
        for guideline, number, text, is_part, sentences in _read_items()
        for entry in [_fill(sentences, given)]
    ]


class ItemCounts(NamedTuple):
    """Numbers of items of a guideline."""

    filled: int
    partly: int
    total: int

    def describe(self) -> str:
        """Format the counts, such as `8 of 34 items and 6 partly`."""
        return f"{self.filled} of {self.total} items" + (f" and {self.partly} partly" if self.partly else "")


def count_filled(items: Sequence[ChecklistItem]) -> dict[str, ItemCounts]:
    """Count the filled, partly filled and all items by guideline."""
    counts = {}
    for guideline in DOIS:
        states = [item.state for item in items if item.guideline == guideline]
        counts[guideline] = ItemCounts(states.count("filled"), states.count("partly"), len(states))
    return counts


def required_facts(sentence: str) -> set[str]:
    """Return the facts that a sentence of `checklist.csv` contains."""
    return {name for _, name, _, _ in Formatter().parse(sentence) if name is not None}


@cache
def _read_items() -> list[tuple[str, str, str, bool, tuple[str, ...]]]:
    """Read guideline, number, text, whether entries are partial, and sentences of each item."""
    content = files("pneumo.reporting").joinpath("templates/checklist.csv").read_text(encoding="utf-8")
    return [
        (guideline, number, text, partly == "partly", tuple(filter(None, entry.split("|"))))
        for guideline, number, text, partly, entry in parse_csv(content)[1]
    ]


def _fill(sentences: Sequence[str], facts: Mapping[str, str]) -> str:
    return " ".join(sentence.format_map(facts) for sentence in sentences if required_facts(sentence) <= facts.keys())
