import csv
import io
import math
from pathlib import Path
from typing import Any

import dcurves
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from helpers import reference_diagnostics, reference_metrics
from helpers.labelled_site import SUBTYPES, THRESHOLD, BrightnessNetwork, write_site
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.metrics import log_loss, roc_auc_score, roc_curve

from pneumo.errors import ConfigError
from pneumo.inference.evaluate.evaluation import Evaluation
from pneumo.inference.evaluate.evaluation_records import to_csv
from pneumo.inference.predictor import Predictor

TOLERANCE = 1e-6


class Table:
    """The rows of the table and the probabilities, computed without pneumo."""

    def __init__(self, evaluation: Evaluation, site: Path) -> None:
        rows = list(csv.DictReader(io.StringIO(site.read_text())))
        self.content: dict[str, Any] = evaluation.to_dict()
        predicted = {row["name"]: row for row in csv.DictReader(io.StringIO(to_csv(evaluation)))}
        self.rows = rows
        self.label = np.array([row["label"] == "PNEUMONIA" for row in rows], np.float64)
        self.probability = np.array([float(predicted[row["file"]]["probability"]) for row in rows])
        self.margin = logit(self.probability)
        self.detected = (self.probability > THRESHOLD).astype(np.float64)
        names = [row["patient"] for row in rows]
        self.patient = np.array([names.index(name) for name in names])


@pytest.fixture(scope="module")
def table(evaluation: Evaluation, site: Path) -> Table:
    return Table(evaluation, site)


def test_probabilities_are_those_of_the_images(table: Table, site: Path) -> None:
    from PIL import Image

    for row, probability in zip(table.rows, table.probability, strict=True):
        mean = np.asarray(Image.open(site.parent / row["file"]), np.float64).mean()
        assert probability == pytest.approx(expit((mean - 128) / 15), abs=1e-6)


def test_metrics_and_intervals_equal_the_reference(table: Table, tmp_path: Path) -> None:
    classes = ("NORMAL", "PNEUMONIA")
    lines = ["path,label,probability,prediction"]
    splits = ["path,patient"]
    for i, row in enumerate(table.rows):
        lines.append(f"{row['file']},{row['label']},{float(table.probability[i])!r},{classes[int(table.detected[i])]}")
        splits.append(f"{row['file']},{row['patient']}")
    (tmp_path / "predictions.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "splits.csv").write_text("\n".join(splits) + "\n")
    shown = {f"test_{name}": value for name, value in table.content.items()}
    for name, value in reference_metrics.compute(tmp_path).items():
        counted = "_ci_" in name and any(each in name for each in ("balanced_accuracy", "f1", "mcc"))
        assert shown[name] == pytest.approx(value, abs=2e-3 if counted else TOLERANCE), name


def test_diagnostics_equal_arithmetic(table: Table) -> None:
    label, detected, content = table.label, table.detected, table.content
    true_positive, false_positive = (label * detected).sum(), ((1 - label) * detected).sum()
    false_negative, true_negative = (label * (1 - detected)).sum(), ((1 - label) * (1 - detected)).sum()
    sensitivity, specificity = true_positive / label.sum(), true_negative / (1 - label).sum()
    assert content["prevalence"] == pytest.approx(label.mean())
    assert content["ppv"] == pytest.approx(true_positive / (true_positive + false_positive))
    assert content["npv"] == pytest.approx(true_negative / (true_negative + false_negative))
    for each, prevalence in zip(content["predictive_values"], (0.05, 0.3), strict=True):
        hit, alarm = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
        miss, quiet = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
        assert (each["prevalence"], each["ppv"]) == (prevalence, pytest.approx(hit / (hit + alarm)))
        assert each["npv"] == pytest.approx(quiet / (quiet + miss))
    low, high = reference_metrics.wilson(label[detected == 1], table.patient[detected == 1])
    assert (content["ppv_ci_low"], content["ppv_ci_high"]) == (pytest.approx(low), pytest.approx(high))


def test_likelihood_ratios_and_intervals_equal_the_reference(table: Table) -> None:
    for name, expected in reference_diagnostics.likelihood_ratios(table.label, table.detected, table.patient).items():
        shown = [table.content[f"likelihood_ratio_{name}{end}"] for end in ("", "_ci_low", "_ci_high")]
        assert shown == pytest.approx(expected, abs=TOLERANCE)


def test_operating_points_equal_the_roc_curve_of_scikit_learn(table: Table) -> None:
    false, true, _ = roc_curve(table.label, table.probability, drop_intermediate=False)
    for point in table.content["operating_points"]:
        rates = {"sensitivity": true, "specificity": 1 - false}
        other = rates["specificity" if point["given"] == "sensitivity" else "sensitivity"]
        assert point["value"] == pytest.approx(other[rates[point["given"]] >= point["level"] - 1e-9].max())
        chosen = table.probability > point["threshold"]
        reached = {"sensitivity": chosen[table.label == 1].mean(), "specificity": 1 - chosen[table.label == 0].mean()}
        assert reached[point["given"]] >= point["level"] - 1e-9
    assert len(table.content["operating_points"]) == 4


def test_calibration_equals_statsmodels(table: Table) -> None:
    content, groups = table.content, {"groups": table.patient}
    slope = sm.Logit(table.label, sm.add_constant(table.margin)).fit(disp=0, cov_type="cluster", cov_kwds=groups)
    large = sm.GLM(table.label, np.ones_like(table.label), sm.families.Binomial(), offset=table.margin).fit()
    assert content["calibration_slope"] == pytest.approx(slope.params[1], abs=TOLERANCE)
    assert content["calibration_intercept"] == pytest.approx(large.params[0], abs=TOLERANCE)
    widening = reference_metrics.widening(len(table.label), len(set(table.patient.tolist())))
    half = 1.959963984540054 * slope.bse[1] * widening
    assert content["calibration_slope_ci_high"] - content["calibration_slope"] == pytest.approx(half, rel=1e-4)
    assert content["observed_expected"] == pytest.approx(table.label.sum() / table.probability.sum(), abs=TOLERANCE)
    assert content["log_loss"] == pytest.approx(log_loss(table.label, table.probability), abs=TOLERANCE)


def test_decision_curve_equals_dcurves(table: Table) -> None:
    curve = table.content["decision_curve"]
    frame = pd.DataFrame({"label": table.label.astype(int), "model": table.probability})
    expected = dcurves.dca(data=frame, outcome="label", modelnames=["model"], thresholds=curve["threshold"])
    for name, key in (("model", "model"), ("all", "treat_all")):
        rows = expected[expected["model"] == name].sort_values("threshold")
        assert curve[key] == pytest.approx(rows["net_benefit"].to_list(), abs=TOLERANCE)


def test_subgroups_equal_metrics_of_their_images(table: Table) -> None:
    groups = {(each["factor"], each["level"]): each for each in table.content["subgroups"]}
    assert {level for factor, level in groups if factor == "view"} == {"AP", "PA"}
    bands = {level for factor, level in groups if factor == "age"}
    assert bands <= {"0-17", "18-39", "40-59", "60-79", "80+"}
    assert sum(each["images"] for (factor, _), each in groups.items() if factor == "age") == len(table.rows)
    for level in ("AP", "PA"):
        chosen = np.array([row["view"] == level for row in table.rows])
        _check_group(groups["view", level], table, chosen)
    old = np.array([int(row["age"]) >= 80 for row in table.rows])
    _check_group(groups["age", "80+"], table, old)
    difference = next(each for each in table.content["subgroup_differences"] if each["metric"] == "sensitivity")
    expected = groups["view", "AP"]["sensitivity"] - groups["view", "PA"]["sensitivity"]
    assert difference["difference"] == pytest.approx(expected)


def _check_group(group: dict[str, Any], table: Table, chosen: NDArray[np.bool_]) -> None:
    label, detected = table.label[chosen], table.detected[chosen]
    assert group["images"] == chosen.sum()
    assert group["patients"] == len(set(table.patient[chosen].tolist()))
    assert group["positives"] == label.sum()
    assert group["auroc"] == pytest.approx(roc_auc_score(label, table.probability[chosen]))
    assert group["sensitivity"] == pytest.approx(detected[label == 1].mean())
    assert group["specificity"] == pytest.approx(1 - detected[label == 0].mean())


def test_the_comparison_equals_differences_of_metrics(table: Table) -> None:
    other = expit(-table.margin * 15 / 40)  # the other network
    detected = (other.astype(np.float32) > np.float32(THRESHOLD)).astype(np.float64)
    comparison = table.content["comparison"]
    own = {each["metric"]: each["difference"] for each in comparison["differences"]}
    label = table.label
    expected = {
        "auroc": roc_auc_score(label, table.probability) - roc_auc_score(label, other),
        "accuracy": (table.detected == label).mean() - (detected == label).mean(),
        "sensitivity": (table.detected - detected)[label == 1].mean(),
        "specificity": (detected - table.detected)[label == 0].mean(),
    }
    assert own == pytest.approx(expected, abs=TOLERANCE)
    assert all(each["p_value"] <= each["p_holm"] <= 1 for each in comparison["differences"])


def test_doubtful_predictions_are_counted(table: Table, site: Path) -> None:
    uncertain = np.abs(table.margin - logit(THRESHOLD)) <= 0.5
    correct = table.detected == table.label
    content = table.content
    assert content["uncertain_fraction"] == pytest.approx(uncertain.mean())
    assert content["accuracy_uncertain"] == pytest.approx(correct[uncertain].mean())
    assert content["accuracy_certain"] == pytest.approx(correct[~uncertain].mean())
    mean = 128 + 15 * table.margin
    assert content["out_of_distribution_fraction"] == pytest.approx((mean > 170).mean())


def test_all_results_are_finite_and_sets_have_the_counts_of_the_table(table: Table) -> None:
    content = table.content
    assert (content["images"], content["positives"]) == (len(table.rows), table.label.sum())
    assert content["patients"] == len(set(table.patient.tolist()))

    def check(value: object) -> None:
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(item)
        assert not isinstance(value, float) or math.isfinite(value)

    check(content)


def test_several_sets_are_sites_and_have_their_own_metrics(
    site: Path, model: Predictor, evaluation: Evaluation, tmp_path: Path
) -> None:
    second = write_site(tmp_path / "second", images=60, seed=5)
    both = model.evaluate([site, second])
    assert list(both.sites) == [site.parent.name, "second"]
    assert both.overall.images == 180
    assert both.sites[site.parent.name].metrics == evaluation.metrics
    names = {each["site"] for each in both.to_dict()["sites"]}
    assert len(names) == 2
    assert "site" in {probe.name for probe in both.probes}


def test_several_classes_have_one_vs_rest_areas_and_binary_metrics(tmp_path: Path) -> None:
    table = write_site(tmp_path, images=60, classes=SUBTYPES)
    evaluation = Predictor(BrightnessNetwork(SUBTYPES)).evaluate(table)
    predictions = evaluation.overall.predictions
    content = evaluation.to_dict()
    assert [each["class"] for each in content["class_aurocs"]] == list(SUBTYPES)
    for k, each in enumerate(content["class_aurocs"]):
        assert each["auroc"] == pytest.approx(roc_auc_score(predictions.label == k, predictions.probability[:, k]))
    expected = roc_auc_score(predictions.label > 0, predictions.probability[:, 1:].sum(axis=1))
    assert content["binary_auroc"] == pytest.approx(expected)
    assert content["internal_missing"]
    assert "<h1>" in evaluation.to_html()


@pytest.mark.parametrize("label", ["NORMAL", "PNEUMONIA"])
def test_metrics_that_require_both_classes_are_missing_for_one_class(
    label: str, tmp_path: Path, model: Predictor
) -> None:
    table = write_site(tmp_path, images=20, classes=(label,))
    evaluation = model.evaluate(table, by=["view"])
    content = evaluation.to_dict()
    assert content["auroc"] is content["balanced_accuracy"] is content["calibration_slope"] is None
    assert (content["sensitivity"] is None) == (label == "NORMAL")
    assert (content["specificity"] is None) == (label == "PNEUMONIA")
    assert content["accuracy"] is not None
    assert content["operating_points"] == []
    assert "absent_class" in {verdict["check"] for verdict in content["verdicts"]}
    assert "undefined" in evaluation.to_html()


def test_options_that_do_not_fit_the_data_are_errors(site: Path, model: Predictor) -> None:
    with pytest.raises(ConfigError, match=r"--by ward .*age, sex, view"):
        model.evaluate(site, by="ward")
    with pytest.raises(ConfigError, match="prevalence 5 "):
        model.evaluate(site, prevalences=[5])
    with pytest.raises(ConfigError, match="No data"):
        model.evaluate()
