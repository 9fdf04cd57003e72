"""Results of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pneumo.inference.backend import Rules
from pneumo.inference.evaluate.cohort import Cohort
from pneumo.inference.evaluate.leakage import Leakage
from pneumo.inference.evaluate.paired_comparison import PairedComparison
from pneumo.inference.evaluate.performance import Fractions, Performance
from pneumo.inference.evaluate.reference import Reference
from pneumo.inference.evaluate.stress import StressTest
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.probes import Probe
from pneumo.metrics.subgroups import Subgroups
from pneumo.reporting.generalization import GeneralizationGap


@dataclass(frozen=True)
class EvaluationResults:
    """The evaluation of a classifier on one or more labelled sets.

    Attributes:
        rules: Rules of the network: classes, threshold and others.
        checkpoint: Path of the network's file as text; empty if there is none.
        cohort: Predictions for all images.
        overall: Performance on all images.
        sites: Performance by site; empty for a single site.
        fractions: Fractions of uncertain and out-of-distribution images.
        reference: The internal test, or the reason why there is none.
        gap: Drop from the internal test to these images, or the reason why it is unknown.
        subgroups: Performance by subgroup; without subgroups, empty lists.
        probes: Predictability of the labels from properties that should not reveal them.
        leakage: Near-duplicates of training images, or the reason why they were not searched for.
        comparison: Paired comparison with another network; None without one.
        stress: Performance on corrupted images; None unless requested.
        split: Split that was used of data sets with splits.
        adaptation: Description of the network's local adaptation; empty without one.
        mined_labels: Whether the labels were extracted from reports.
    """

    rules: Rules
    checkpoint: str
    cohort: Cohort
    overall: Performance
    sites: Mapping[str, Performance]
    fractions: Fractions
    reference: Reference | str
    gap: GeneralizationGap | str
    subgroups: Subgroups
    probes: Sequence[Probe]
    leakage: Leakage | str
    comparison: PairedComparison | None
    stress: StressTest | None
    split: str
    adaptation: str
    mined_labels: bool

    @property
    def metrics(self) -> Mapping[str, Estimate]:
        """Metrics of all images with 95 % intervals, by name; those that require an absent class are left out."""
        return self.overall.metrics
