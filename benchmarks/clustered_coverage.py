"""Coverage of the 95 % intervals and type I error of the paired tests, with several correlated images per patient.

python benchmarks/clustered_coverage.py --full
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from pneumo.common.files import write_text
from pneumo.metrics.definitions import METRICS, estimates, measure
from pneumo.metrics.intervals import Array
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import delong, delong_interval, permutation_test, placements

PATIENTS, IMAGES = 125, 5  # number of patients in a test, and of images per patient
_POSITIVE = 0.625  # fraction of positive patients, or of positive images
_SHARED = 0.6  # fraction of the variance of scores that is common to both networks
_POPULATION = 100_000  # patients whose metrics are the true values


class Case(NamedTuple):
    """Parameters of simulated data.

    Attributes:
        area: AUROC.
        correlation: Intraclass correlation of the scores of one patient's images.
        mixed: True if a patient can have images of both classes.
    """

    area: float
    correlation: float
    mixed: bool


CASES = (*(Case(0.95, icc, False) for icc in (0.3, 0.5, 0.8, 0.0)), Case(0.95, 0.5, True), Case(0.85, 0.5, False))


def draw(generator: np.random.Generator, case: Case, patients: int) -> tuple[Predictions, Predictions]:
    """Draw the predictions of two equally good networks for the same images."""
    clusters = np.repeat(np.arange(patients), IMAGES)
    ranks = generator.random(len(clusters)) if case.mixed else clusters / patients
    positive = ranks < _POSITIVE
    of_patient, of_image = generator.normal(size=(3, patients))[:, clusters], generator.normal(size=(3, len(clusters)))

    def score(network: int) -> Array:
        parts = [np.sqrt(_SHARED) * each[0] + np.sqrt(1 - _SHARED) * each[network] for each in (of_patient, of_image)]
        noise = np.sqrt(case.correlation) * parts[0] + np.sqrt(1 - case.correlation) * parts[1]
        return np.asarray(np.sqrt(2) * norm.ppf(case.area) * (positive - 0.5) + noise)

    names = tuple(map(str, clusters))
    first, second = (
        Predictions.binary(1 / (1 + np.exp(-2 * each)), positive, each > 0, margin=each, patients=names)
        for each in (score(1), score(2))
    )
    return first, second


def paired_p_values(first: Predictions, second: Predictions, patients: bool) -> tuple[float, float]:
    """Compute the p-values of the paired tests of accuracy and AUROC, clustered by patient or not."""
    clusters = first.clusters if patients else np.arange(len(first.positive))
    one, two = (placements(each.score, each.positive, clusters) for each in (first, second))
    correct = [each.correct.astype(np.int64) for each in (first, second)]
    return permutation_test(correct[0], correct[1], (1, 1), clusters), delong(one, two).p


def cover_areas(case: Case, tests: int) -> dict[str, float]:
    """Return the AUROC interval's coverage and the paired tests' type I errors, clustered by patient and not."""
    generator, names = np.random.default_rng(950), ("swap_test", "obuchowski", "swap_test_of_images", "delong")
    covered, p_values = np.zeros(2), []
    for _ in range(tests):
        first, second = draw(generator, case, PATIENTS)
        for number, clusters in enumerate((first.clusters, None)):
            low, high = delong_interval(placements(first.score, first.positive, clusters))
            covered[number] += low <= case.area <= high
        p_values.append([*paired_p_values(first, second, True), *paired_p_values(first, second, False)])
    errors = (np.array(p_values) < 0.05).mean(axis=0).tolist()
    areas = dict(zip(("auroc", "auroc_of_images"), (covered / tests).tolist(), strict=True))
    return areas | dict(zip(names, errors, strict=True))


def cover_metrics(case: Case, tests: int) -> dict[str, float]:
    """Return the coverage of each metric."""
    generator = np.random.default_rng(960)
    truth = measure(replace(draw(generator, case, _POPULATION)[0], patients=()))
    covered = dict.fromkeys(METRICS, 0.0)
    for _ in range(tests):
        for name, (_, low, high) in estimates(draw(generator, case, PATIENTS)[0]).items():
            covered[name] += (low <= truth[name] <= high) / tests
    return covered


def main() -> None:
    """Run the simulations, print the results and write clustered-coverage.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--full", action="store_true", help="thousands of tests per case, half an hour (default: 20 to 100)"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="folder (default: %(default)s)")
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {}
    for name, simulate, tests in (
        ("areas", cover_areas, 4_000 if arguments.full else 100),
        ("metrics", cover_metrics, 1_000 if arguments.full else 20),
    ):
        results[name] = []
        for case in CASES:
            results[name].append({**case._asdict(), "tests": tests, **simulate(case, tests)})
            print(results[name][-1], flush=True)
            write_text(arguments.out / "clustered-coverage.json", json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
