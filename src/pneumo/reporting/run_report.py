"""The HTML report of a run, self-contained in one file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import OmegaConf

from pneumo.common.terminal import tell
from pneumo.errors import ConfigError
from pneumo.metrics.predictions import Predictions, distance
from pneumo.reporting.figures.examples import Chosen, choose
from pneumo.reporting.figures.run_figures import embed_figures
from pneumo.reporting.rendering import render
from pneumo.runs.collection import read_finished
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.recorded_config import read_config
from pneumo.runs.results import NO_IMAGE, SUBTYPES, TITLES, Results, count_tested
from pneumo.runs.status import write_report

KINDS = ("right", "wrong", "uncertain")
_TITLES = {
    **TITLES,
    **{f"sensitivity_{name}": f"sensitivity to {name} pneumonia" for name in SUBTYPES},
    "auroc_bacterial_viral": "AUROC, bacterial against viral",
}


class Run(NamedTuple):
    """A finished run, its predictions for test images, and which of these its page shows."""

    folder: Path
    results: Results
    answers: Predictions
    chosen: Chosen


class Shown(NamedTuple):
    """A film on the page, as JPEG without and with its saliency map; `answer` has class and probability."""

    path: str
    film: bytes
    map: bytes
    truth: str
    answer: str
    right: bool


class Explanations(NamedTuple):
    """What a page shows of a run's checkpoint and data.

    Attributes:
        films: By `KINDS`.
        forgotten: Rank correlation of saliency maps with those of a randomised head, or of a randomised network.
        missing: Why there is nothing of this.
        margin: Logits within which a prediction counts as uncertain; None if unknown.
        uncertain: The fraction of validation images that lies within.
    """

    films: dict[str, list[Shown]]
    forgotten: dict[str, float]
    missing: str
    margin: float | None
    uncertain: float | None


class Band(NamedTuple):
    """How the test went within and outside of what is uncertain: shares of images, and of right answers among them."""

    share: float
    right_inside: float
    right_outside: float


def read_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        ConfigError: No run has finished there, or a file of it is missing.
    """
    results = read_finished(folder)
    answers = read_predictions(folder, results)
    return Run(folder, results, answers, choose(answers, float(results["threshold"])))


def write_run_page(run: Run, explanations: Explanations, page: Path) -> None:
    """Write the page of a run."""
    results = run.results
    config = ""
    with suppress(ConfigError):  # the page says that it is missing
        config = OmegaConf.to_yaml(read_config(run.folder))
    text = render(
        "run.html",
        title=f"{results['model']} · {results['optimizer']} · seed {results['seed']}",
        results=results,
        tested=count_tested(results),
        metrics=_metrics(results),
        facts=_facts(results),
        band=_band(run, explanations.margin),
        positive=run.answers.classes[-1],
        rights=run.chosen.rights,
        wrongs=run.chosen.wrongs,
        figures=embed_figures(run.folder),
        config=config,
        **explanations._asdict(),
    )
    write_report(page, text)
    tell(f"{'page':<12} {page}")


def _metrics(results: Results) -> list[tuple[str, Any, Any, Any]]:
    """Return title, value and interval of each metric that has one."""
    keys = {
        title: f"test_{name}" for name, title in _TITLES.items() if results.get(f"test_{name}", NO_IMAGE) != NO_IMAGE
    }
    return [(title, results[key], results[f"{key}_ci_low"], results[f"{key}_ci_high"]) for title, key in keys.items()]


def _facts(results: Results) -> dict[str, str]:
    return {
        "experiment": f"{results['experiment']}, data {results['data']}, split {results['split']}",
        "images": f"{results['image_size']} x {results['image_size']} pixels, batches of {results['batch_size']}",
        "tested": f"epoch {results['best_epoch']} of {results['epochs']}",
        "decision": "the likeliest class"
        if results["threshold_rule"] == "likeliest"
        else f"positive above {results['threshold']:.4g} ({results['threshold_rule']})",
        "temperature": f"{results['temperature']:.3f}",
        "parameters": f"{results['parameters_total']:,}, of which {results['parameters_trainable']:,} were trained",
        "training": f"{results['train_seconds']:,.0f} s, {results['samples_per_second']:,.0f} images a second",
        "machine": f"{results['device']}, {results['precision']}",
        "pneumo": f"{results['pneumo_version']} ({str(results['git_commit'])[:12]})",
        "PyTorch": str(results["torch_version"]),
    }


def _band(run: Run, margin: float | None) -> Band | None:
    if margin is None:
        return None
    right = run.answers.right
    near = distance(run.answers.probability.astype(np.float32), float(run.results["threshold"])) <= margin
    return Band(float(near.mean()), *(float(right[part].mean()) if part.any() else 0.0 for part in (near, ~near)))
