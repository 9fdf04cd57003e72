import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from pneumo.errors import ConfigError, DataError
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.sample_size import Population, Widths, describe_population, design_effect, images_needed

QUANTILES = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
NONE = Widths(*[None] * 6)
# Example of Riley et al., 2021: mechanical heart valve failure
VALVES = Population(0.018, 0.8, 0.2, 0.99, 0.08, QUANTILES * 2.5 - 5)


def need(population: Population, **widths: float) -> int:
    (requirement,) = images_needed(population, NONE._replace(**widths))
    return requirement.images


@pytest.mark.parametrize(
    ("population", "widths", "published"),
    [
        (VALVES, {"observed_expected": 1.0}, 905),  # pmvalsampsize 0.1, first example
        (VALVES, {"slope": 0.2}, 4544),
        (VALVES, {"auroc": 0.1}, 4252),
        (VALVES, {"net_benefit": 0.2}, 3553),  # code of Riley et al., 2021, section 4.4
        (VALVES._replace(prevalence=0.5), {"observed_expected": 0.2}, 385),  # section 3.1.1
        (VALVES._replace(prevalence=0.1), {"observed_expected": 0.2}, 3460),
        (VALVES._replace(prevalence=0.1), {"observed_expected": 0.7}, 294),
    ],
)
def test_published_examples_are_reproduced(population: Population, widths: dict[str, float], published: int) -> None:
    # Published numbers use rounded standard errors or simulated margins.
    assert need(population, **widths) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(("sensitivity", "prevalence", "width"), [(0.9, 0.3, 0.1), (0.8, 0.05, 0.05)])
def test_proportions_have_the_wanted_width(sensitivity: float, prevalence: float, width: float) -> None:
    population = VALVES._replace(sensitivity=sensitivity, specificity=0.7, prevalence=prevalence)
    positives = need(population, sensitivity=width) * prevalence
    assert 2 * 1.959964 * np.sqrt(sensitivity * (1 - sensitivity) / positives) == pytest.approx(width, rel=0.01)
    negatives = need(population, specificity=width) * (1 - prevalence)
    assert 2 * 1.959964 * np.sqrt(0.7 * 0.3 / negatives) == pytest.approx(width, rel=0.01)


@pytest.mark.parametrize("area", [0.6, 0.8, 0.95])
def test_intervals_of_simulated_aurocs_have_about_the_wanted_width(area: float) -> None:
    images = need(VALVES._replace(auroc=area, prevalence=0.4), auroc=0.1)
    generator, positives = np.random.default_rng(0), round(0.4 * images)
    shift = np.sqrt(2) * norm.ppf(area)
    areas = []
    for _ in range(400):
        above, below = generator.normal(shift, 1, positives), np.sort(generator.normal(0, 1, images - positives))
        areas.append(np.searchsorted(below, above).mean() / len(below))
    assert 2 * 1.96 * np.std(areas) == pytest.approx(0.1, rel=0.2)


def test_criteria_and_positives_are_listed_in_order() -> None:
    found = images_needed(VALVES._replace(prevalence=0.4))
    assert [each.criterion for each in found] == list(Widths._fields)
    assert [each.width for each in found] == list(Widths())
    assert all(each.positives == round(0.4 * each.images) for each in found)
    fewer = images_needed(VALVES._replace(prevalence=0.4), Widths(*(2 * width for width in Widths() if width)))
    assert all(wide.images < narrow.images for wide, narrow in zip(fewer, found, strict=True))


def test_miscalibration_changes_the_slope_criterion_only() -> None:
    overconfident = VALVES._replace(slope=0.5)
    halved = VALVES._replace(margin=VALVES.margin / 2)
    # With half the slope, the same outcomes have twice the margins: a quarter of the variance of the slope.
    assert need(overconfident, slope=0.2) == pytest.approx(need(halved, slope=0.2) / 4, abs=1)
    assert need(overconfident, auroc=0.1) == need(VALVES, auroc=0.1)


def test_design_effect_multiplies_images() -> None:
    clusters = np.array([0, 0, 0, 1, 2, 2])
    assert design_effect(clusters) == pytest.approx((9 + 1 + 4) / 6)
    assert design_effect(clusters, correlation=0.5) == pytest.approx(1 + (14 / 6 - 1) / 2)
    assert design_effect(np.arange(5)) == 1
    assert need(VALVES._replace(design_effect=2.0), auroc=0.1) == pytest.approx(2 * need(VALVES, auroc=0.1), abs=1)


def test_a_population_is_described_by_a_sample() -> None:
    generator = np.random.default_rng(0)
    margin = generator.normal(0, 2, 20_000)
    positive = generator.random(20_000) < expit(0.7 * margin - 0.5)
    patients = tuple(str(i // 2) for i in range(20_000))
    sample = Predictions.binary(expit(margin), positive, margin > 0, margin=margin, patients=patients)
    found = describe_population(sample, 0.5)
    assert found.prevalence == positive.mean()
    assert (found.intercept, found.slope) == pytest.approx((-0.5, 0.7), abs=0.05)
    assert found.sensitivity == pytest.approx((margin > 0)[positive].mean(), abs=1e-3)
    assert found.specificity == pytest.approx((margin <= 0)[~positive].mean(), abs=1e-3)
    assert found.auroc == pytest.approx(roc_auc_score(positive, margin))
    assert found.design_effect == 2


def test_a_perfect_sample_requires_images_nevertheless() -> None:
    margin = np.linspace(-3, 3, 40)
    sample = Predictions.binary(expit(margin), margin > 0, margin > 0, margin=margin)
    assert all(each.images > 20 for each in images_needed(describe_population(sample, 0.5)))


def test_a_sample_of_one_class_is_refused() -> None:
    sample = Predictions.binary(np.array([0.1, 0.9]), np.array([True, True]), np.array([False, True]))
    with pytest.raises(DataError, match="both classes"):
        describe_population(sample, 0.5)


def test_values_without_a_solution_are_refused() -> None:
    for width in (0.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="auroc"):
            need(VALVES, auroc=width)
    with pytest.raises(DataError, match="slope"):
        need(VALVES._replace(margin=np.full(10, 2.0)), slope=0.2)
