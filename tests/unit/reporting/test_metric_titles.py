import pytest

from pneumo.metrics.definitions import METRICS
from pneumo.reporting.metric_titles import reported_metrics

SENSITIVITIES = ["sensitivity", "sensitivity_bacterial", "sensitivity_viral"]


def test_tables_list_named_metrics_then_those_with_a_rank_and_subtypes_below_the_sensitivity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranked = ["accuracy", "auroc", "balanced_accuracy", *SENSITIVITIES, "specificity"]
    assert list(reported_metrics(subtype="{}")) == ranked
    monkeypatch.setitem(METRICS, "f1", METRICS["f1"]._replace(rank=0))
    found = reported_metrics("brier", "sensitivity", "auroc_bacterial_viral", subtype="to {}")
    first = ["brier", *SENSITIVITIES, "auroc_bacterial_viral"]
    assert list(found) == [*first, "accuracy", "auroc", "balanced_accuracy", "specificity", "f1"]
    assert (found["sensitivity_viral"], found["f1"]) == ("to viral", "F1")
