import io
import json
import math

import pytest
from rich.console import Console

from pneumo.data.corruptions import CORRUPTIONS
from pneumo.inference.evaluate.stress import StressCondition, StressTest
from pneumo.inference.evaluate.stress_outputs import describe_stress, draw_stress_test, stress_table, to_records
from pneumo.metrics.intervals import Estimate
from pneumo.reporting.figures.style import encode


def made_up(metric: str = "auroc") -> StressTest:
    """Create a test where squeezing at severity 5 is worst."""

    def at(name: str, severity: int) -> Estimate:
        value = 0.9 - 0.02 * severity - (0.3 if (name, severity) == ("squeeze", 5) else 0)
        return Estimate(value, value - 0.05, value + 0.05)

    conditions = tuple(
        StressCondition(
            name,
            severity,
            {metric: at(name, severity), "accuracy": at(name, severity)},
            Estimate(0.02 * severity, -0.1, 0.2) if metric == "auroc" else None,
            None,
        )
        for name in CORRUPTIONS
        for severity in range(1, 6)
    )
    mean = {metric: Estimate(0.8, 0.7, 0.9), "accuracy": Estimate(0.75, 0.7, 0.8)}
    clean = StressCondition("", 0, {metric: at("", 0), "accuracy": at("", 0)}, None, None)
    return StressTest("a set", 40, 50, 0, clean, conditions, mean, (mean,) * 5, dict.fromkeys(CORRUPTIONS, mean))


def render(test: StressTest, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(stress_table(test))
    text = console.file.getvalue()  # type: ignore[attr-defined] # a StringIO
    return str(text)


def test_records_are_finite_json_with_stable_keys() -> None:
    records = json.loads(json.dumps(to_records(made_up()), allow_nan=False))
    assert list(records) == [
        *("seed", "images", "images_of_set", "clean", "mean", "mean_by_severity", "mean_by_corruption"),
        *("worst", "conditions"),
    ]
    first = records["conditions"][0]
    assert list(first) == [
        *("corruption", "severity", "auroc", "auroc_ci_low", "auroc_ci_high"),
        *("accuracy", "accuracy_ci_low", "accuracy_ci_high"),
        *("auroc_drop", "auroc_drop_ci_low", "auroc_drop_ci_high", "out_of_distribution"),
    ]
    assert math.isclose(first["auroc"], 0.88)
    assert (records["worst"]["corruption"], records["worst"]["severity"]) == ("squeeze", 5)
    assert records["clean"]["corruption"] is None
    assert len(records["conditions"]) == 5 * len(CORRUPTIONS) == 5 * len(records["mean_by_corruption"])


def test_an_undefined_drop_is_null() -> None:
    assert to_records(made_up("accuracy"))["worst"]["auroc_drop_ci_low"] is None


@pytest.mark.parametrize("metric", ["auroc", "accuracy"])
def test_the_table_fits_a_narrow_terminal(metric: str) -> None:
    text = render(made_up(metric), width=62)
    assert max(map(len, text.splitlines())) <= 62
    rows = [line.split() for line in text.splitlines()]
    assert ["squeezed", "aspect", "0.880", "0.860", "0.840", "0.820", "0.500"] in [row[:7] for row in rows]
    assert all(any(corruption.title in line for line in text.splitlines()) for corruption in CORRUPTIONS.values())


def test_the_description_names_the_sample_and_the_worst_condition() -> None:
    text = describe_stress(made_up())
    assert "40 images, sampled by patient from 50" in text
    assert "squeezed aspect, severity 5: 0.500 (0.450 to 0.550)" in text


def test_the_figure_has_a_panel_per_corruption() -> None:
    figure = draw_stress_test(made_up())
    assert [axes.get_title() for axes in figure.axes] == [corruption.title for corruption in CORRUPTIONS.values()]
    line = figure.axes[0].lines[1].get_ydata()
    assert [float(value) for value in line] == pytest.approx([0.9, 0.88, 0.86, 0.84, 0.82, 0.8])  # type: ignore[arg-type, union-attr]
    assert encode({"stress": figure}, "png")["stress"].startswith(b"\x89PNG")
