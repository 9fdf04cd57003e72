import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit
from sklearn.metrics import log_loss

from pneumo.metrics.predictions import Predictions
from pneumo.metrics.recalibration import fit_logistic, margins, measure_calibration


def draw(seed: int, images: int = 400, spread: float = 2.0, patients: int = 150) -> Predictions:
    """Draw predictions for correlated images of patients; the calibration intercept is -0.5, the slope 0.7."""
    generator = np.random.default_rng(seed)
    patient = generator.integers(0, patients, images)
    margin = generator.normal(0, spread / 2, patients)[patient] + generator.normal(0, spread, images)
    positive = generator.random(images) < expit(0.7 * margin - 0.5)
    names = tuple(map(str, patient))
    return Predictions.binary(expit(margin), positive, margin > 0, margin=margin, patients=names)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("images", "spread"), [(40, 1.0), (400, 2.0), (400, 10.0)])
def test_fits_equal_statsmodels_with_clusters(seed: int, images: int, spread: float) -> None:
    predictions = draw(seed, images, spread)
    margin, positive, groups = margins(predictions), predictions.positive.astype(float), predictions.clusters
    options = {"cov_type": "cluster", "cov_kwds": {"groups": groups}, "tol": 1e-12}
    offset = sm.GLM(positive, np.ones((images, 1)), sm.families.Binomial(), offset=margin).fit(**options)
    logit = sm.GLM(positive, sm.add_constant(margin), sm.families.Binomial()).fit(**options)
    for expected, slope in ((offset, False), (logit, True)):
        fit = fit_logistic(margin, predictions.positive, groups, slope=slope)
        assert fit is not None
        assert fit.coefficients == pytest.approx(expected.params, abs=1e-6)
        assert fit.covariance == pytest.approx(expected.cov_params(), rel=1e-6, abs=1e-6)


def test_fit_of_one_image_per_patient_equals_that_without_patients() -> None:
    predictions = draw(0)
    margin, positive = margins(predictions), predictions.positive
    alone = fit_logistic(margin, positive, slope=True)
    single = fit_logistic(margin, positive, np.random.default_rng(0).permutation(400), slope=True)
    assert alone is not None
    assert single is not None
    assert single.covariance == pytest.approx(alone.covariance)
    logit = sm.Logit(positive.astype(float), sm.add_constant(margin))
    expected = logit.fit(disp=0, cov_type="HC0").cov_params() * 400 / (400 - 2)
    assert alone.covariance == pytest.approx(expected, rel=1e-5)


def test_measures_equal_statsmodels_and_scikit_learn() -> None:
    predictions = draw(1, patients=100_000)
    found = measure_calibration(predictions)
    assert found.intercept is not None
    assert found.slope is not None
    assert found.observed_expected is not None
    positive, margin = predictions.positive.astype(float), margins(predictions)
    clustered = {"cov_type": "cluster", "cov_kwds": {"groups": predictions.clusters}}
    offset = sm.GLM(positive, np.ones((400, 1)), sm.families.Binomial(), offset=margin).fit(**clustered)
    # Two patients have two images, so Student's t widens the normal interval by less than 1e-4.
    assert found.intercept == pytest.approx((offset.params[0], *offset.conf_int()[0]), abs=1e-4)
    slope = sm.Logit(positive, sm.add_constant(margin)).fit(disp=0, **clustered)
    assert found.slope == pytest.approx((slope.params[1], *slope.conf_int()[1]), abs=1e-4)
    assert found.log_loss.value == pytest.approx(log_loss(positive, expit(margin)), abs=1e-6)
    assert found.observed_expected.value == pytest.approx(positive.sum() / expit(margin).sum())


def test_intervals_contain_the_true_parameters_of_many_images() -> None:
    generator = np.random.default_rng(0)
    margin = generator.normal(0, 2, 10_000)
    positive = generator.random(10_000) < expit(0.7 * margin - 0.5)
    found = measure_calibration(Predictions.binary(expit(margin), positive, margin > 0, margin=margin))
    assert found.slope is not None
    assert found.slope.low < 0.7 < found.slope.high < 0.8
    calibrated = expit(0.7 * margin - 0.5)
    found = measure_calibration(Predictions.binary(calibrated, positive, margin > 0))
    assert found.intercept is not None
    assert found.slope is not None
    assert found.observed_expected is not None
    assert found.intercept.low < 0 < found.intercept.high
    assert found.slope.low < 1 < found.slope.high
    assert found.observed_expected.low < 1 < found.observed_expected.high


def test_equal_images_of_a_patient_do_not_narrow_any_interval() -> None:
    once = draw(2, patients=100_000).take(np.arange(200))
    thrice = once.take(np.arange(200).repeat(3))
    for one, three in zip(measure_calibration(once), measure_calibration(thrice), strict=True):
        assert one is not None
        assert three is not None
        assert three.value == pytest.approx(one.value, abs=1e-8)
        assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.1)


@pytest.mark.parametrize("sign", [1, -1])
def test_separable_classes_have_an_intercept_but_no_slope(sign: int) -> None:
    margin = np.array([-3.0, -2.0, -1.0, -1.0, 1.0, 2.0]) * sign
    positive = np.array([False, False, False, True, True, True])  # two images of both classes are on the boundary
    found = measure_calibration(Predictions.binary(expit(margin), positive, margin > 0, margin=margin))
    assert found.slope is None
    assert found.intercept is not None
    assert np.isfinite(found.intercept).all()


def test_equal_margins_have_an_intercept_but_no_slope() -> None:
    positive = np.arange(100) < 30
    found = measure_calibration(Predictions.binary(np.full(100, 0.5), positive, positive))
    assert found.slope is None
    assert found.intercept is not None
    assert found.intercept.value == pytest.approx(np.log(0.3 / 0.7))
    assert found.observed_expected is not None
    assert found.observed_expected.value == pytest.approx(0.6)


@pytest.mark.parametrize("positive", [True, False])
def test_a_single_class_has_neither_intercept_nor_slope(positive: bool) -> None:
    margin = np.linspace(-2, 1, 50)
    found = measure_calibration(Predictions.binary(expit(margin), np.full(50, positive), margin > 0, margin=margin))
    assert found.intercept is None
    assert found.slope is None
    assert found.observed_expected is not None
    assert np.isfinite(found.observed_expected).all()
    assert found.observed_expected.low <= found.observed_expected.value < found.observed_expected.high


def test_a_single_patient_determines_no_interval() -> None:
    found = measure_calibration(
        Predictions.binary(
            np.array([0.2, 0.6, 0.4]), np.array([False, True, True]), np.ones(3) > 0, patients=("a",) * 3
        )
    )
    assert found[:3] == (None, None, None)
    assert np.isfinite(found.log_loss).all()


def test_extreme_margins_stay_finite() -> None:
    margin = np.array([-800.0, 900.0, -700.0, 850.0, 0.0, 20.0])
    positive = np.array([False, True, True, False, True, False])
    predictions = Predictions.binary(expit(margin), positive, margin > 0, margin=margin)
    found = measure_calibration(predictions)
    assert found.log_loss.value == pytest.approx((700 + 850 + np.log(2) + 20) / 6)
    for estimate in found:
        assert estimate is not None
        assert np.isfinite(estimate).all()


def test_margins_of_predictions_without_log_odds_are_finite() -> None:
    predictions = Predictions.binary(np.array([0.0, 0.25, 1.0]), np.array([False, True, True]), np.ones(3) > 0)
    assert margins(predictions) == pytest.approx([np.log(1e-7), -np.log(3), -np.log(1e-7)], abs=1e-6)


def test_three_classes_are_read_as_positive_against_negative() -> None:
    generator = np.random.default_rng(0)
    probability = generator.dirichlet(np.ones(3), 100)
    three = Predictions(probability, generator.integers(0, 3, 100), probability.argmax(1))
    two = Predictions.binary(1 - probability[:, 0], three.label > 0, three.predicted > 0)
    for first, second in zip(measure_calibration(three), measure_calibration(two), strict=True):
        assert first == pytest.approx(second)
