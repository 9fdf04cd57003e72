"""Reports of a run: a self-contained HTML page and a model card.

Source of the model card: M. Mitchell et al., Model Cards for Model Reporting, 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import OmegaConf

from pneumo.common.input_format import ADDED_CHOICES, InputFormat
from pneumo.common.terminal import print_line
from pneumo.common.text import format_probability
from pneumo.errors import ConfigError
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.predictions import Predictions, distance
from pneumo.metrics.subtypes import NO_IMAGE
from pneumo.metrics.summary import TITLES, reported_metrics
from pneumo.reporting.figures.run_figures import Examples, embed_figures, select_examples
from pneumo.reporting.generalization import GeneralizationGap, describe_gap, read_gap
from pneumo.reporting.rendering import render
from pneumo.reporting.run_summary import STATE_NOTES
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.recorded_config import read_config, resolve_references, select
from pneumo.runs.results import Results, count_test_images, read_finished, recorded_estimate, run_title
from pneumo.runs.split_files import HEADER, SIZE, read_splits
from pneumo.runs.status import write_report

_CARD_METRICS = (
    *("accuracy", "balanced_accuracy", "sensitivity", "specificity", "auroc", "auroc_bacterial_viral", "auprc"),
    *("ece", "brier"),
)
# Settings that the model card shows, with their types.
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
    """A finished run, its predictions for the test images, and the indices of the examples on its page."""

    folder: Path
    results: Results
    predictions: Predictions
    examples: Examples


class ExplainedImage(NamedTuple):
    """A test image on the page, as JPEG with and without its saliency map."""

    path: str
    image: bytes
    overlay: bytes  # the image with its saliency map
    true_class: str
    prediction: str  # predicted class and probability
    is_correct: bool


class Explanations(NamedTuple):
    """Saliency maps of a run's examples, and its margin of uncertainty."""

    images: dict[str, list[ExplainedImage]]  # by `Examples.kinds`
    correlations: dict[str, float]  # rank correlation of the maps with those of a randomised head or network
    missing: str  # reason why there are no maps; empty if there are
    margin: float | None  # distance from the decision boundary, in logits, of uncertain predictions; None if unknown
    uncertain_fraction: float | None  # fraction of the validation images within the margin; None if unknown


class _UncertainTest(NamedTuple):
    """Fraction of uncertain test images, and the accuracy on uncertain and on other test images."""

    fraction: float
    accuracy_inside: float
    accuracy_outside: float


def read_run(folder: Path) -> ReportedRun:
    """Read a finished run; raise a ConfigError if it has not finished or one of its files is missing."""
    results = read_finished(folder)
    predictions = read_predictions(folder, results)
    return ReportedRun(folder, results, predictions, select_examples(predictions, float(results["threshold"])))


def write_run_page(run: ReportedRun, explanations: Explanations, page: Path) -> None:
    """Write the HTML page of a run."""
    results = run.results
    config = ""
    with suppress(ConfigError):  # without a configuration, the page has no such section
        config = OmegaConf.to_yaml(read_config(run.folder))
    text = render(
        "run.html",
        title=run_title(results),
        results=results,
        tested=count_test_images(results),
        metrics=_metrics(results, TITLES),
        facts=_facts(results),
        uncertain=_measure_uncertain(run, explanations.margin),
        positive=run.predictions.classes[-1],
        right_count=run.examples.right_count,
        wrong_count=run.examples.wrong_count,
        figures=embed_figures(run.folder),
        config=config,
        explanations=explanations,
        state_notes=STATE_NOTES,
    )
    write_report(page, text)
    print_line(f"{'page':<12} {page}")


def _metrics(results: Results, titles: Mapping[str, str]) -> list[tuple[str, Estimate]]:
    """Return the titles and estimates of the metrics that the results have."""
    shown = [name for name in titles if results.get(f"test_{name}", NO_IMAGE) != NO_IMAGE]
    return [(titles[name], recorded_estimate(results, name)) for name in shown]


def _facts(results: Results) -> dict[str, str]:
    threshold = format_probability(float(results["threshold"]))
    return {
        "experiment": f"{results['experiment']}, data {results['data']}, split {results['split']}",
        "images": f"{results['image_size']} x {results['image_size']} pixels, batch size {results['batch_size']}",
        "tested checkpoint": f"epoch {results['best_epoch']} of {results['epochs']}",
        "predicted class": "the most probable class"
        if results["threshold_rule"] == "likeliest"
        else f"positive above a probability of {threshold} (rule: {results['threshold_rule']})",
        "temperature": f"{results['temperature']:.3f}",
        "parameters": f"{results['parameters_total']:,} ({results['parameters_trainable']:,} trainable)",
        "training time": f"{results['train_seconds']:,.0f} s, {results['samples_per_second']:,.0f} images per second",
        "device": f"{results['device']}, {results['precision']}",
        "pneumo": f"{results['pneumo_version']} ({str(results['git_commit'])[:12]})",
        "PyTorch": str(results["torch_version"]),
    }


def _measure_uncertain(run: ReportedRun, margin: float | None) -> _UncertainTest | None:
    if margin is None:
        return None
    right, single = run.predictions.correct, run.predictions.probability.astype(np.float32)
    near = distance(single, float(run.results["threshold"])) <= margin
    accuracies = (float(right[part].mean()) if part.any() else 0.0 for part in (near, ~near))
    return _UncertainTest(float(near.mean()), *accuracies)


def write_model_card(run: Path, folder: Path) -> None:
    """Write the MODEL_CARD.md of a finished run."""
    write_report(folder / "MODEL_CARD.md", _model_card(run))
    print_line(f"{'model card':<12} {folder / 'MODEL_CARD.md'}")


def _model_card(folder: Path) -> str:
    """Render the model card of a finished run as Markdown; raise a ConfigError if one of its files is missing."""
    results = read_finished(folder)
    config = resolve_references(read_config(folder))
    for key, kinds in _SETTINGS.items():
        select(config, key, *kinds)
    images, data = read_splits(folder), config["data"]
    splits, table = _count_splits(images), data.get("table") is not None
    outputs = data["classes"] if isinstance(data.get("classes"), list) and data["classes"] else ["PNEUMONIA"]
    titles = {
        **reported_metrics(*_CARD_METRICS),
        "ece": "expected calibration error",
    }
    gap = read_gap(folder, results) if results["task"] == "pneumonia" else None
    return render(
        "model_card.md",
        results=results,
        config=config,
        conversion=_read_input_format(results, data).describe(),
        kermany=results["data"] == "chest_xray" and results["task"] != "multiclass",
        outputs=outputs,
        positive="pneumonia" if outputs[-1] == "PNEUMONIA" else str(outputs[-1]),
        table=table,
        patients_source="" if table else " (from file names)",
        recorded=[name for name in images[0] if name not in (*HEADER, SIZE) and any(each[name] for each in images)],
        splits=splits,
        classes=list(splits[0]["classes"]),
        tested=count_test_images(results),
        augmentation=", ".join(
            f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"
            for name, value in config["augment"].items()
            if name[:1] != "_" and value and (name, value) != ("share", 1)
        ),
        metrics=_metrics(results, titles),
        state_notes=STATE_NOTES,
        gap=f"{_compare_sets(gap)}. {describe_gap(gap)}" if isinstance(gap, GeneralizationGap) else "",
    )


def _read_input_format(results: Results, data: Mapping[str, Any]) -> InputFormat:
    added = {name: data[name] for name, values in ADDED_CHOICES.items() if data.get(name) in values}
    return InputFormat(int(results["image_size"]), data["crop_pct"], **added)


def _compare_sets(gap: GeneralizationGap) -> str:
    before, after = gap.validation_metrics, gap.test_metrics
    return ", ".join(
        f"{title} {before[name].value:.3f} on validation and {after[name].value:.3f} on test images"
        for title, name in (("AUROC", "auroc"), ("balanced accuracy", "balanced_accuracy"))
    )


def _count_splits(images: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Count images, patients and classes of each split."""
    classes = list(dict.fromkeys(image["class"] for image in images))
    counts = []
    for split in dict.fromkeys(image["split"] for image in images):
        part = [image for image in images if image["split"] == split]
        by_class = {name: sum(image["class"] == name for image in part) for name in classes}
        patients = len({image["patient"] for image in part})
        counts.append({"name": split, "images": len(part), "patients": patients, "classes": by_class})
    return counts
