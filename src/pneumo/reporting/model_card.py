"""The model card of a run.

Source: M. Mitchell et al., Model Cards for Model Reporting, 2019.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pneumo.metrics.definitions import METRICS
from pneumo.reporting.generalization import Shift, explain_shift, read_shift
from pneumo.reporting.rendering import render
from pneumo.runs.collection import read_finished
from pneumo.runs.recorded_config import read_config, resolve_references, select
from pneumo.runs.results import NO_IMAGE, TITLES, Results, count_tested
from pneumo.runs.split_files import read_splits

_TITLES = {
    **TITLES,
    "sensitivity_bacterial": "to bacterial pneumonia",
    "sensitivity_viral": "to viral pneumonia",
    "auroc_bacterial_viral": "AUROC, bacterial against viral",
    "ece": "expected calibration error",
}
# fmt: off
_FIRST = (
    "accuracy", "balanced_accuracy", "sensitivity", "sensitivity_bacterial", "sensitivity_viral", "specificity",
    "auroc", "auroc_bacterial_viral", "auprc", "ece", "brier",
)
# fmt: on
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


def model_card(folder: Path) -> str:
    """Render the model card of the finished run in a folder, as Markdown.

    Raises:
        ConfigError: No run has finished there, or a file of it is missing.
    """
    results = read_finished(folder)
    config = resolve_references(read_config(folder))
    for key, kinds in _SETTINGS.items():
        select(config, key, *kinds)
    parts = _count(read_splits(folder))
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
        metrics=[(_TITLES[name], name) for name in _shown_metrics(results)],
        shift=f"{_sides(shift)}. {explain_shift(shift)}" if isinstance(shift, Shift) else "",
    )


def _shown_metrics(results: Results) -> list[str]:
    """Return the names of the card's metrics: after its own choice, others that the table of a run has."""
    ranked = (metric.name for metric in METRICS.values() if metric.rank is not None)
    return [name for name in dict.fromkeys((*_FIRST, *ranked)) if results.get(f"test_{name}", NO_IMAGE) != NO_IMAGE]


def _sides(shift: Shift) -> str:
    values = {name: (shift.held_out[name].value, shift.official[name].value) for name in ("auroc", "balanced_accuracy")}
    return ", ".join(
        f"{TITLES[name]} {held_out:.3f} on validation and {official:.3f} on test images"
        for name, (held_out, official) in values.items()
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
