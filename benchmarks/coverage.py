"""How often the 95 % intervals of a test's metrics contain the truth, in simulated tests of 390 and 234 images.

python benchmarks/coverage.py --full
"""

import argparse
import json
from pathlib import Path

import numpy as np
import rich
from rich.table import Table
from scipy.stats import norm

from pneumo.evaluation.answers import Answers
from pneumo.evaluation.bootstrap import bootstrap_metrics, measure, percentiles
from pneumo.evaluation.intervals import Interval
from pneumo.evaluation.results import TEST_METRICS
from pneumo.evaluation.summary import metric_intervals
from pneumo.files import write_text

# Sensitivity, specificity, and how far probabilities are from 0.5: the kind of run here, and better ones.
CASES = (
    (0.99, 0.60, 1.0),
    (0.98, 0.80, 2.0),
    (0.95, 0.90, 2.0),
    (0.98, 0.95, 3.0),
    (0.99, 0.97, 4.0),
)
_MANY = 1_000_000  # images, whose metrics are the truth


def draw(generator: np.random.Generator, case: tuple[float, float, float], count: int) -> Answers:
    """Draw answers whose scores are normally distributed in each class, 390 of 624 images positive."""
    sensitivity, specificity, scale = case
    threshold = norm.ppf(specificity)
    positive = np.arange(count) < count * 390 / 624
    ill, well = (generator.normal(mean, 1, count) for mean in (threshold + norm.ppf(sensitivity), 0))
    score = np.where(positive, ill, well) - threshold
    probability = (1 / (1 + np.exp(-scale * score))).astype(np.float32)
    return Answers(probability.astype(np.float64), positive, probability > 0.5)


def percentile_intervals(answers: Answers) -> dict[str, Interval]:
    """Give the plain bootstrap's interval of every metric."""
    return {name: percentiles(draws) for name, draws in bootstrap_metrics(answers, TEST_METRICS).items()}


def cover(case: tuple[float, float, float], tests: int, seed: int, percentile: bool) -> dict[str, tuple[float, float]]:
    """Give truth and coverage of each metric."""
    generator = np.random.default_rng(seed)
    truth = {
        name: float(value[0]) for name, value in measure(draw(generator, case, _MANY), np.ones((1, _MANY))).items()
    }
    covered = dict.fromkeys(TEST_METRICS, 0)
    for _ in range(tests):
        answers = draw(generator, case, 624)
        for name, (low, high) in (percentile_intervals if percentile else metric_intervals)(answers).items():
            covered[name] += low <= truth[name] <= high
    return {name: (truth[name], covered[name] / tests) for name in TEST_METRICS}


def main() -> None:
    """Simulate, print, and write coverage.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="1,000 tests of each case, half an hour; default: 50")
    parser.add_argument("--percentile", action="store_true", help="the percentile bootstrap for all metrics instead")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="folder (default: %(default)s)")
    given = parser.parse_args()
    tests = 1_000 if given.full else 50
    method = "percentile" if given.percentile else "pneumo"
    table = Table("sensitivity", "specificity", *TEST_METRICS, title=f"coverage in {tests:,} tests, {method}")
    found = []
    for number, case in enumerate(CASES):
        covered = cover(case, tests, 900 + number, given.percentile)
        found.append({"case": case, "coverage": covered})
        table.add_row(*map(str, case[:2]), *(f"{share:.3f}" for _, share in covered.values()))
        rich.print(f"{case}: " + ", ".join(f"{name} {share:.3f}" for name, (_, share) in covered.items()))
        write_text(given.out / f"coverage-{method}.json", json.dumps({"tests": tests, "cases": found}, indent=2) + "\n")
    rich.print(table)


if __name__ == "__main__":
    main()
