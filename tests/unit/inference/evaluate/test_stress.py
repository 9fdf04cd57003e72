from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.brightness_network import brightness_predictor
from PIL import Image
from sklearn.metrics import roc_auc_score

from pneumo.common.input_format import InputFormat
from pneumo.data.corruptions import CORRUPTIONS, corrupt, reduce_image
from pneumo.data.grey import square
from pneumo.data.labelled_images import LabelledImage, LabelledSet
from pneumo.errors import DataError
from pneumo.inference.evaluate.cohort import Cohort, predict_cohort
from pneumo.inference.evaluate.stress import StressTest, run_stress, sample_patients
from pneumo.metrics.predictions import Predictions

COUNT = 14
SEED = 3
CLASSES = ("NORMAL", "PNEUMONIA")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Predict images whose brightness is related to their label; two of each patient."""
    folder, generator = tmp_path_factory.mktemp("cohort"), np.random.default_rng(0)
    images = []
    for index in range(COUNT):
        label = CLASSES[index % 2]
        level = 110 + 25 * (index % 2) + generator.normal(0, 25)
        pixels = (level + generator.normal(0, 30, (70, 60))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        images.append(LabelledImage(folder / f"{index}.png", f"{index}.png", label, f"p{index // 2}", "", ""))
    return predict_cohort(brightness_predictor(), LabelledSet("set", tuple(images), (), ()))


@pytest.fixture(scope="module")
def stress(cohort: Cohort) -> StressTest:
    return run_stress(brightness_predictor(), cohort, SEED)


def level(cohort: Cohort, number: int, name: str, severity: int) -> float:
    """Compute the network's score without the code under test."""
    pixels = reduce_image(Image.open(cohort.images[number].file))
    return float(square(Image.fromarray(corrupt(pixels, name, severity, SEED, number)), InputFormat(32)).mean()) / 255


@pytest.mark.parametrize(("name", "severity"), [("brightness_up", 5), ("gaussian_noise", 3), ("markers", 5)])
def test_metrics_of_a_condition_are_those_of_the_corrupted_images(
    cohort: Cohort, stress: StressTest, name: str, severity: int
) -> None:
    scores = np.array([level(cohort, number, name, severity) for number in range(COUNT)])
    positive, condition = cohort.predictions.positive, stress.condition(name, severity)
    assert condition.estimates["auroc"].value == pytest.approx(roc_auc_score(positive, scores))
    assert condition.estimates["accuracy"].value == pytest.approx(((scores > 0.5) == positive).mean())
    assert condition.estimates["sensitivity"].value == pytest.approx((scores > 0.5)[positive].mean())
    assert condition.out_of_distribution == pytest.approx((scores > 0.6).mean())
    clean = roc_auc_score(positive, [level(cohort, number, name, 0) for number in range(COUNT)])
    assert stress.clean.estimates["auroc"].value == pytest.approx(clean)
    assert condition.auroc_drop is not None
    assert condition.auroc_drop.value == pytest.approx(clean - condition.estimates["auroc"].value)


def test_all_corruptions_are_tested_in_all_severities(stress: StressTest) -> None:
    expected = [(name, severity) for name in CORRUPTIONS for severity in range(1, 6)]
    assert [(each.corruption, each.severity) for each in stress.conditions] == expected
    assert (stress.images, stress.total) == (COUNT, COUNT)
    assert stress.clean.auroc_drop is None


@pytest.mark.parametrize("metric", ["auroc", "accuracy"])
def test_means_average_the_conditions(stress: StressTest, metric: str) -> None:
    values = np.array([each.estimates[metric].value for each in stress.conditions]).reshape(-1, 5)
    assert stress.means[metric].value == pytest.approx(values.mean())
    assert [means[metric].value for means in stress.severity_means] == pytest.approx(values.mean(axis=0))
    assert [means[metric].value for means in stress.corruption_means.values()] == pytest.approx(values.mean(axis=1))
    assert stress.means[metric].low < stress.means[metric].value < stress.means[metric].high


def test_the_worst_condition_has_the_lowest_auroc(stress: StressTest) -> None:
    assert stress.main_metric == "auroc"
    assert stress.worst.estimates["auroc"].value == min(each.estimates["auroc"].value for each in stress.conditions)


def test_results_do_not_depend_on_the_batch_size(cohort: Cohort, stress: StressTest) -> None:
    assert run_stress(brightness_predictor(batch_size=81 * 3 + 1), cohort, SEED) == stress


def test_images_of_one_class_are_ranked_by_accuracy(cohort: Cohort) -> None:
    index = np.flatnonzero(cohort.predictions.positive)[:3]
    images = tuple(cohort.images[i] for i in index)
    stress = run_stress(
        brightness_predictor(), replace(cohort, images=images, predictions=cohort.predictions.take(index))
    )
    assert stress.main_metric == "accuracy"
    assert stress.worst.estimates.keys() == {"accuracy", "sensitivity"}
    assert all(each.auroc_drop is None for each in stress.conditions)
    assert stress.means.keys() == {"accuracy"}


def test_a_file_that_vanished_is_named(cohort: Cohort, tmp_path: Path) -> None:
    gone = replace(cohort.images[0], file=tmp_path / "gone.png", name="a/gone.png")
    with pytest.raises(DataError, match=r"a/gone\.png"):
        run_stress(brightness_predictor(), replace(cohort, images=(gone, *cohort.images[1:])))


def made_up(patients: list[str], positive: list[bool]) -> Predictions:
    probability = np.full(len(positive), 0.3)
    return Predictions.binary(probability, np.array(positive), probability > 0.5, patients=tuple(patients))


def test_small_sets_are_used_whole() -> None:
    assert sample_patients(made_up(["a", "b", "c"], [True, False, False]), 3, 0).tolist() == [0, 1, 2]


def test_samples_have_whole_patients_of_all_classes() -> None:
    patients = [f"p{index // 3}" for index in range(900)]
    positive = [index // 3 % 50 == 0 for index in range(900)]
    chosen = sample_patients(made_up(patients, positive), 90, 0)
    counts = np.unique([patients[index] for index in chosen], return_counts=True)[1]
    assert set(counts) == {3}
    assert 80 <= len(chosen) <= 93
    assert sum(positive[index] for index in chosen) == 3
    assert chosen.tolist() == sorted(chosen)
    assert chosen.tolist() != sample_patients(made_up(patients, positive), 90, 1).tolist()
