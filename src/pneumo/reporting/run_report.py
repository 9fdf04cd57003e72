"""Reports of a run: one HTML page, which needs no network and opens from the disk, and a model card.

Source of the card: M. Mitchell et al., Model Cards for Model Reporting, 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import OmegaConf

from pneumo.common.terminal import print_line
from pneumo.errors import ConfigError
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.predictions import Predictions, distance
from pneumo.metrics.subtypes import NO_IMAGE
from pneumo.metrics.summary import TITLES, reported_metrics
from pneumo.reporting.figures.run_figures import Chosen, choose, embed_figures
from pneumo.reporting.generalization import Shift, explain_shift, read_shift
from pneumo.reporting.rendering import render
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.recorded_config import read_config, resolve_references, select
from pneumo.runs.results import Results, count_tested, name_run, read_finished, recorded_estimate
from pneumo.runs.split_files import read_splits
from pneumo.runs.status import write_report

_ON_CARDS = (
    *("accuracy", "balanced_accuracy", "sensitivity", "specificity", "auroc", "auroc_bacterial_viral", "auprc"),
    *("ece", "brier"),
)
# What the card shows of the configuration, and its types.
_SETTINGS: dict[str, tuple[type, ...]] = {
    "model.architecture": (str,),
    "model.weights": (str, type(None)),
    **dict.fromkeys(("model.freeze", "loss.balance", "fine_tuning.warm_up"), (bool,)),
    **dict.fromkeys(("decision.flip", "decision.temperature"), (bool,)),
    **dict.fromkeys(("data.crop_pct", "fine_tuning.lr_decay", "loss.label_smoothing"), (float,)),
    **dict.fromkeys(("decision.sensitivity", "augment.jpeg", "augment.stretch", "optimizer.lr"), (float,)),
    **dict.fromkeys(("augment", "callbacks"), (dict,)),
    "callbacks.best.monitor": (str, type(None)),
}


class ReportedRun(NamedTuple):
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
    """What a page shows of a run's checkpoint and data."""

    films: dict[str, list[Shown]]  # by `Chosen.kinds`
    forgotten: dict[str, float]  # rank correlation of saliency maps with those of a randomised head or network
    missing: str  # why there is nothing of this
    margin: float | None  # logits within which a prediction counts as uncertain; None if unknown
    uncertain: float | None  # the fraction of validation images that lies within


class _Band(NamedTuple):
    """How the test went within and outside of what is uncertain: shares of images, and of right answers among them."""

    share: float
    right_inside: float
    right_outside: float


def read_run(folder: Path) -> ReportedRun:
    """Read a finished run; raise a ConfigError if none has finished there, or a file of it is missing."""
    results = read_finished(folder)
    answers = read_predictions(folder, results)
    return ReportedRun(folder, results, answers, choose(answers, float(results["threshold"])))


def write_run_page(run: ReportedRun, explanations: Explanations, page: Path) -> None:
    """Write the page of a run."""
    results = run.results
    config = ""
    with suppress(ConfigError):  # the page says that it is missing
        config = OmegaConf.to_yaml(read_config(run.folder))
    text = render(
        "run.html",
        title=name_run(results),
        results=results,
        tested=count_tested(results),
        metrics=_metrics(results, TITLES),
        facts=_facts(results),
        band=_band(run, explanations.margin),
        positive=run.answers.classes[-1],
        rights=run.chosen.rights,
        wrongs=run.chosen.wrongs,
        figures=embed_figures(run.folder),
        config=config,
        explanations=explanations,
    )
    write_report(page, text)
    print_line(f"{'page':<12} {page}")


def _metrics(results: Results, titles: Mapping[str, str]) -> list[tuple[str, Estimate]]:
    """Return title, value and interval of each metric that has one."""
    shown = [name for name in titles if results.get(f"test_{name}", NO_IMAGE) != NO_IMAGE]
    return [(titles[name], recorded_estimate(results, name)) for name in shown]


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


def _band(run: ReportedRun, margin: float | None) -> _Band | None:
    if margin is None:
        return None
    right = run.answers.right
    near = distance(run.answers.probability.astype(np.float32), float(run.results["threshold"])) <= margin
    return _Band(float(near.mean()), *(float(right[part].mean()) if part.any() else 0.0 for part in (near, ~near)))


def write_model_card(run: Path, folder: Path) -> None:
    """Write the MODEL_CARD.md of a finished run to a folder."""
    write_report(folder / "MODEL_CARD.md", _model_card(run))
    print_line(f"{'model card':<12} {folder / 'MODEL_CARD.md'}")


def _model_card(folder: Path) -> str:
    """Return the model card of a finished run, as Markdown; raise a ConfigError if a file of it is missing."""
    results = read_finished(folder)
    config = resolve_references(read_config(folder))
    for key, kinds in _SETTINGS.items():
        select(config, key, *kinds)
    parts = _count(read_splits(folder))
    titles = {**reported_metrics(*_ON_CARDS, subtype="to {} pneumonia"), "ece": "expected calibration error"}
    shift = read_shift(folder, results) if results["task"] == "pneumonia" else None
    return render(
        "model_card.md",
        results=results,
        config=config,
        splits=parts,
        classes=list(parts[0]["classes"]),
        tested=count_tested(results),
        augmentation=", ".join(
            f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"
            for name, value in config["augment"].items()
            if name[:1] != "_" and value and (name, value) != ("share", 1)
        ),
        metrics=_metrics(results, titles),
        shift=f"{_sides(shift)}. {explain_shift(shift)}" if isinstance(shift, Shift) else "",
    )


def _sides(shift: Shift) -> str:
    return ", ".join(
        f"{title} {shift.held_out[name].value:.3f} on validation and {shift.official[name].value:.3f} on test images"
        for title, name in (("AUROC", "auroc"), ("balanced accuracy", "balanced_accuracy"))
    )


def _count(lines: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Count images, patients and classes of each split."""
    names = list(dict.fromkeys(line["class"] for line in lines))
    found = []
    for split in dict.fromkeys(line["split"] for line in lines):
        here = [line for line in lines if line["split"] == split]
        counts = {name: sum(line["class"] == name for line in here) for name in names}
        patients = len({line["patient"] for line in here})
        found.append({"name": split, "images": len(here), "patients": patients, "classes": counts})
    return found
