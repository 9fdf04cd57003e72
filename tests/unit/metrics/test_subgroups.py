from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from pneumo.errors import DataError
from pneumo.metrics.intervals import Estimate, subtract, wilson
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import holm
from pneumo.metrics.subgroups import MIN_IMAGES, TOO_FEW_IMAGES, age_bands, measure_subgroups


def draw(seed: int, patients: int = 150, images: int = 2) -> Predictions:
    generator = np.random.default_rng(seed)
    patient = np.arange(patients).repeat(images)
    positive = np.arange(patients)[patient] % 5 < 2
    margin = generator.normal(0, 1, patients)[patient] + generator.normal(2.0 * positive - 1, 0.7)
    return Predictions.binary(expit(margin), positive, margin > 0, margin=margin, patients=tuple(map(str, patient)))


def test_groups_are_measured_like_their_images_alone() -> None:
    predictions = draw(0)
    view = np.where(np.random.default_rng(0).random(300) < 0.3, "AP", "PA")
    groups, _ = measure_subgroups(predictions, {"view": view.tolist()})
    assert [(group.factor, group.level) for group in groups] == [("view", "AP"), ("view", "PA")]
    for group in groups:
        mask = view == group.level
        assert group.images == mask.sum()
        assert group.patients == len(set(predictions.clusters[mask]))
        assert group.positives == (mask & predictions.positive).sum()
        label, predicted = predictions.label[mask], predictions.predicted[mask]
        assert group.estimates["auroc"].value == pytest.approx(roc_auc_score(label, predictions.score[mask]))
        assert group.estimates["sensitivity"].value == pytest.approx(predicted[label == 1].mean())
        assert group.estimates["specificity"].value == pytest.approx(1 - predicted[label == 0].mean())
        for value, low, high in group.estimates.values():
            assert low < value < high


def test_differences_between_patients_are_newcombe_intervals() -> None:
    # Sensitivity 18 of 20 against 27 of 50; no patient has two images.
    positive = np.ones(80, bool)
    positive[70:] = False
    sex = ["F"] * 20 + ["M"] * 50 + ["F"] * 5 + ["M"] * 5
    predicted = np.concatenate([np.arange(20) < 18, np.arange(50) < 27, np.arange(10) % 2 == 0])
    found = measure_subgroups(Predictions.binary(np.where(predicted, 0.9, 0.1), positive, predicted), {"sex": sex})
    (test,) = (each for each in found.differences if each.metric == "sensitivity")
    assert (test.factor, test.level) == ("sex", "F")
    expected = subtract(Estimate(0.9, *wilson(18, 20)), Estimate(0.54, *wilson(27, 50)))
    assert test.difference[:3] == pytest.approx(expected)
    assert test.difference.p == pytest.approx(2 * norm.sf(1.959964 * 0.36 / (0.36 - expected.low)), rel=1e-4)


def test_p_values_are_below_5_percent_exactly_if_intervals_exclude_zero() -> None:
    significant = set()
    for seed in range(12):
        sex = ["F" if seed % 2 and i < 60 else "M" for i in range(300)]
        predictions = draw(seed)
        margin = predictions.score + np.where(np.array(sex) == "F", 1.0, 0.0)
        shifted = replace(predictions, odds=np.stack([-margin, margin], 1), predicted=(margin > 0).astype(int))
        factors = {"sex": sex, "view": ["AP" if i % 3 else "PA" for i in range(300)]}
        for test in measure_subgroups(shifted, factors).differences:
            value, low, high, p = test.difference
            assert -1 <= low <= value <= high <= 1
            assert (p < 0.05) == (low > 0 or high < 0)
            significant.add(p < 0.05)
    assert significant == {True, False}


def test_correlation_within_patients_narrows_differences_between_their_images() -> None:
    paired, view = draw(1), ["AP", "PA"] * 150
    apart = replace(paired, patients=tuple(map(str, range(300))))
    first, second = (measure_subgroups(each, {"view": view}).differences for each in (paired, apart))
    for one, other in zip(first, second, strict=True):
        assert one.difference.value == pytest.approx(other.difference.value)
        assert one.difference.high - one.difference.low < 0.9 * (other.difference.high - other.difference.low)


def test_equal_images_of_a_patient_do_not_narrow_any_difference() -> None:
    once = draw(2, images=1)
    sex = ["F" if i % 3 else "M" for i in range(150)]
    thrice = once.take(np.arange(150).repeat(3))
    first, second = (
        measure_subgroups(each, {"sex": np.repeat(sex, count).tolist()}).differences
        for each, count in ((once, 1), (thrice, 3))
    )
    for one, three in zip(first, second, strict=True):
        assert three.difference.value == pytest.approx(one.difference.value)
        assert np.ptp(three.difference[1:3]) == pytest.approx(np.ptp(one.difference[1:3]), rel=0.1)


def test_each_level_is_tested_against_all_others_and_corrected_over_all_factors() -> None:
    site = [("A", "B", "C")[i // 2 % 3] for i in range(300)]
    sex = ["F" if i % 3 else "M" for i in range(300)]
    differences = measure_subgroups(draw(3), {"site": site, "sex": sex}).differences
    levels = [(test.factor, test.level) for test in differences[::3]]
    assert levels == [("site", "A"), ("site", "B"), ("site", "C"), ("sex", "F")]
    assert [test.metric for test in differences[:3]] == ["auroc", "sensitivity", "specificity"]
    assert [test.holm for test in differences] == holm([test.difference.p for test in differences])


def test_missing_values_form_a_group_that_is_not_tested() -> None:
    sex = ["F", "M", ""] * 100
    groups, differences = measure_subgroups(draw(4), {"sex": sex})
    assert [(group.level, group.images) for group in groups] == [("F", 100), ("M", 100), ("unknown", 100)]
    assert {test.level for test in differences} == {"F"}
    known = np.array([value != "" for value in sex])
    alone = measure_subgroups(draw(4).take(np.flatnonzero(known)), {"sex": [value for value in sex if value]})
    assert [test.difference for test in differences] == [test.difference for test in alone.differences]


def test_metrics_of_absent_classes_are_left_out() -> None:
    predictions = draw(5)
    sex = np.where(predictions.positive, "F", "M").tolist()
    groups, differences = measure_subgroups(predictions, {"sex": sex})
    assert [list(group.estimates) for group in groups] == [["sensitivity"], ["specificity"]]
    assert differences == []


def test_one_level_and_single_images_are_measured_without_error() -> None:
    predictions = draw(6)
    assert measure_subgroups(predictions, {"sex": ["F"] * 300}).differences == []
    age = ["80+"] + ["18-39"] * 299
    assert [group.images for group in measure_subgroups(predictions, {"age": age}).groups] == [299, 1]
    assert measure_subgroups(predictions, {}) == ([], [])


@pytest.mark.parametrize("images", [MIN_IMAGES - 1, MIN_IMAGES])
def test_small_levels_are_not_tested(images: int) -> None:
    sex = ["F"] * images + ["M"] * (300 - images)
    assert bool(measure_subgroups(draw(6), {"sex": sex}).differences) == (images == MIN_IMAGES)
    three = ["A"] * images + ["B"] * 150 + ["C"] * (150 - images)
    groups, differences = measure_subgroups(draw(6), {"site": three})
    assert groups[0].untested == (TOO_FEW_IMAGES if images < MIN_IMAGES else None)
    assert {test.level for test in differences} == {"B", "C"} | ({"A"} if images == MIN_IMAGES else set())


def test_the_reason_is_stated_for_each_level_that_is_in_no_test() -> None:
    sex = ["F"] * 5 + ["M"] * 280 + [""] * 15
    groups, differences = measure_subgroups(draw(6), {"sex": sex})
    assert {group.level: group.untested for group in groups} == {
        "F": "fewer than 10 images",
        "M": "fewer than 10 images of other levels",
        "unknown": "unknown value",
    }
    assert differences == []
    tested = measure_subgroups(draw(6), {"sex": ["F", "M"] * 150})
    assert [group.untested for group in tested.groups] == [None, None]
    assert {test.level for test in tested.differences} == {"F"}


def test_small_levels_do_not_weaken_the_correction_of_others() -> None:
    sex, ward = ["F", "M"] * 150, ["large"] * 260 + [str(index) for index in range(40)]
    together = measure_subgroups(draw(8), {"sex": sex, "ward": ward})
    assert {(test.factor, test.level) for test in together.differences} == {("sex", "F"), ("ward", "large")}
    assert len(together.groups) == 43
    assert len(together.largest) == 2 + 15
    assert together.largest[-1].level == "large"


def test_too_many_levels_are_refused() -> None:
    with pytest.raises(DataError, match="StudyDate"):
        measure_subgroups(draw(7), {"StudyDate": [str(i) for i in range(300)]})


def test_three_classes_are_read_as_positive_against_negative() -> None:
    generator = np.random.default_rng(0)
    probability = generator.dirichlet(np.ones(3), 100)
    three = Predictions(probability, generator.integers(0, 3, 100), probability.argmax(1))
    two = Predictions.binary(1 - probability[:, 0], three.label > 0, three.predicted > 0)
    sex = ["F", "M"] * 50
    first, second = (measure_subgroups(each, {"sex": sex}).groups[0].estimates for each in (three, two))
    assert first["sensitivity"] == pytest.approx(second["sensitivity"])
    assert first["auroc"] == pytest.approx(second["auroc"])


@pytest.mark.parametrize(
    ("value", "band"),
    [
        ("0", "0-17"),
        ("17.9", "0-17"),
        ("18", "18-39"),
        ("39,5", "18-39"),
        ("40", "40-59"),
        ("059Y", "40-59"),
        ("60", "60-79"),
        (" 77y ", "60-79"),
        ("080Y", "80+"),
        ("150", "80+"),
        ("003M", "0-17"),
        ("216M", "18-39"),
        ("012W", "0-17"),
        ("005D", "0-17"),
        ("77 Y", "60-79"),
        ("", "unknown"),
        ("nan", "unknown"),
        ("-3", "unknown"),
        ("411", "unknown"),
        ("0x20", "unknown"),
        ("٣٤", "unknown"),
        ("adult", "unknown"),
    ],
)
def test_ages_are_grouped_into_bands(value: str, band: str) -> None:
    assert age_bands([value]) == [band]
