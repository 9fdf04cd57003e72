"""Validation of the training state in a checkpoint, which Lightning would restore without checks."""

import math
import re
from pathlib import PurePath
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, ProgressBar, Timer, WeightAveraging
from packaging.version import InvalidVersion, Version
from torch import Tensor

from pneumo.common.tensor_files import is_dense
from pneumo.config.constraints import Rule
from pneumo.training.callbacks import PASSIVE_CALLBACKS, AveragedWeights, History
from pneumo.training.components import RunComponents
from pneumo.training.state_schema import (
    ABSENT,
    NUMBER,
    SCALAR,
    TEXT,
    Progress,
    StateError,
    between,
    compare,
    compare_items,
    format_value,
    require,
    require_dict,
    require_optimization,
    scalar_tensor,
    schema_of,
    state_indices,
)

_MIN_VERSION = Version("2.0")  # of Lightning, which migrates older checkpoints; pneumo never wrote any
_MAX_SECONDS = 1e9  # of training, about 30 years
# Callbacks of Lightning that do not change learning rates; their subclasses too.
_KEEP_RATES = (EarlyStopping, ModelCheckpoint, ProgressBar, Timer, WeightAveraging)
_BEST_METRICS = ("train/accuracy", "val/loss", "val/accuracy", "val/auroc")
_SET_BY_CALIBRATION = ("temperature", "threshold", "margin")
_LOOP = "loops.fit_loop"


def require_training_state(checkpoint: dict[str, Any], best: dict[str, Any], components: RunComponents) -> None:
    """Raise a StateError unless this run could have stored a checkpoint's content after some epoch.

    `best` is the best checkpoint so far.
    """
    datamodule, classifier, trainer = components.datamodule, components.classifier, components.trainer
    compare_items(checkpoint, {"pytorch-lightning_version": Rule(_is_supported, f"a version from {_MIN_VERSION}")}, "")
    callbacks = components.callbacks
    timers = [callback for callback in callbacks if isinstance(callback, Timer)]
    # Limits of steps or time can cut the last epoch short; its validation may then be missing.
    whole = trainer.max_steps == -1 and all(timer.time_remaining() is None for timer in timers)
    epochs, steps, scheduled = _require_progress(checkpoint, len(datamodule.splits["train"]), trainer, whole)
    states = require_dict(checkpoint.get("callbacks"), "callbacks")
    history = _require_history(states, components.callback(History).state_key, epochs)
    for callback in callbacks:
        if own_state := callback.state_dict():
            name = f"callbacks.{callback.state_key}"
            state = require_dict(states.get(callback.state_key), name)
            if isinstance(callback, ModelCheckpoint):
                _require_best_path(callback, state, history, name)
            elif _is_known(callback) and not isinstance(callback, History):  # other states may change their schema
                compare(state, schema_of(own_state) | _fixed_items(callback, own_state, steps), name)
    _require_best(best, history, components)
    exact = whole and all(map(_is_known, callbacks))
    progress = Progress(epochs, steps, scheduled, max(trainer.max_epochs or 0, epochs), exact)
    require_optimization(checkpoint, classifier, progress)
    require(state_indices(checkpoint) == state_indices(best), "optimizer_states lacks the state of some parameters")
    weights = classifier.state_dict()
    expected: dict[str, object] = {
        type(datamodule).__qualname__: {"epoch": epochs},
        "state_dict": weights,
        # Lightning would restore all; only calibration adds the second, and only `pneumo adapt` the third.
        **dict.fromkeys(("native_amp_scaling_state", "outliers", "adaptation"), ABSENT),
    }
    if averaged := [callback for callback in callbacks if isinstance(callback, WeightAveraging)]:
        count = scalar_tensor(steps) if isinstance(averaged[0], AveragedWeights) else torch.zeros((), dtype=torch.long)
        expected |= {"current_model_state": weights, "averaging_state": {"n_averaged": count}}
    plugin = trainer.precision_plugin
    if (name := type(plugin).__qualname__) in checkpoint:
        expected[name] = dict.fromkeys(plugin.state_dict(), between(0, math.inf))
    compare_items(checkpoint, expected, "")


def _is_known(callback: Callback) -> bool:
    return isinstance(callback, _KEEP_RATES) or type(callback) in PASSIVE_CALLBACKS


def _is_supported(version: object) -> bool:
    try:
        return isinstance(version, str) and Version(version) >= _MIN_VERSION
    except InvalidVersion:
        return False


def _require_progress(checkpoint: dict[str, Any], images: int, trainer: Trainer, whole: bool) -> tuple[int, int, int]:
    """Return the numbers of epochs, optimizer steps and scheduler steps after checking that all counters agree."""
    max_epochs = trainer.max_epochs
    assert max_epochs is not None
    compare_items(checkpoint, {"epoch": between(0, max_epochs - 1 if max_epochs > 0 else 2**40, whole=True)}, "")
    epochs = 1 + int(checkpoint["epoch"])
    progress = require_dict(checkpoint.get("loops"), "loops").get("fit_loop")
    compare(progress, schema_of(trainer.fit_loop.state_dict()), _LOOP)
    assert isinstance(progress, dict)
    optimization = progress["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    batches = _require_count(progress["epoch_loop.batch_progress"], "batch_progress", epochs, whole)
    steps = _require_count(optimization["step"], "optim_progress.step", epochs, whole)
    scheduled = _require_count(progress["epoch_loop.scheduler_progress"], "scheduler_progress", epochs, False)
    _require_count(progress["epoch_loop.val_loop.batch_progress"], "val_loop.batch_progress", 1, whole)
    zeroed = _require_count(optimization["zero_grad"], "zero_grad", epochs, whole)
    manual = progress["epoch_loop.manual_optimization.optim_step_progress"]
    require(zeroed == steps, f"{_LOOP}: zero_grad={zeroed} must be {steps}, the number of steps")
    require(
        _require_count(manual, "manual_optimization", epochs, whole) == 0, f"{_LOOP} has steps of manual_optimization"
    )
    for loop in ("epoch_loop", "epoch_loop.val_loop"):
        require(
            progress[f"{loop}.batch_progress"]["is_last_batch"] or not whole, f"{loop} is in the middle of an epoch"
        )
    require(
        0 < steps <= batches <= epochs * images, f"{batches} batches and {steps} steps do not match {epochs} epochs"
    )
    # Checkpoints are saved at the end of an epoch, before Lightning counts it as completed.
    counts = {"ready": epochs, "started": epochs, "processed": epochs, "completed": epochs - 1}
    expected = {
        "epoch_progress": {"total": counts, "current": counts},
        "epoch_loop.state_dict": {"_batches_that_stepped": steps},
    }
    compare_items(progress, expected, f"{_LOOP}.")
    compare_items(checkpoint, {"global_step": steps}, "")
    return epochs, steps, scheduled


def _require_count(progress: dict[str, Any], name: str, epochs: int, whole: bool) -> int:
    """Return the total of a counter; it must be complete and, if all epochs are whole, equal in each epoch."""
    total, current = ({*progress[part].values()} for part in ("total", "current"))
    require(len(total) == len(current) == 1, f"{_LOOP}: {name} is not complete")
    (all_epochs,), (last,) = total, current
    compare(all_epochs, between(0, 2**40, whole=True), name)
    high = all_epochs if whole else 2**40  # an epoch cut short keeps the counter of the previous validation
    compare(last, between(0, high, whole=True), name)
    require(not whole or all_epochs == last * epochs, f"{_LOOP}: {name} is {all_epochs} after {epochs} epochs")
    return int(all_epochs)


def _require_history(states: dict[str, Any], key: str, epochs: int) -> list[dict[str, float]]:
    state = require_dict(states.get(key), "callbacks.History")
    history = state.get("epochs")
    if not isinstance(history, list) or len(history) != epochs:
        raise StateError(f"callbacks.History must have {epochs} epochs")
    names = require_dict(history[0], "callbacks.History.epochs").keys() | {"epoch"}
    schema = {name: between(0, 1 if name.endswith(("accuracy", "auroc")) else math.inf) for name in names}
    for number, epoch in enumerate(history, 1):
        compare(epoch, {**schema, "epoch": number}, "callbacks.History.epochs")
    return history


def _fixed_items(callback: Callback, own_state: dict[str, Any], steps: int) -> dict[str, object]:
    """Return the items of a callback's state with stricter rules than their types."""
    if isinstance(callback, Timer):
        times: dict[str, object] = dict.fromkeys(own_state["time_elapsed"], between(0, _MAX_SECONDS))
        return {"time_elapsed": {**times, "train": between(math.ulp(0), _MAX_SECONDS)}}
    return {"latest_update_step": steps} if isinstance(callback, AveragedWeights) else {}


def _require_best_path(
    callback: ModelCheckpoint, state: dict[str, Any], history: list[dict[str, float]], name: str
) -> None:
    """Raise a StateError unless all paths are checkpoints of the callback and the best score is that of the history."""
    keys = callback.state_dict().keys()
    require(state.keys() == keys, f"{name} must have {', '.join(keys)}")
    scores = require_dict(state["best_k_models"], f"{name}.best_k_models")
    folder, best, score = state["dirpath"], state["best_model_path"], state["best_model_score"]
    fixed = callback.filename is not None and "{" not in callback.filename
    for path in (best, state["kth_best_model_path"], state["last_model_path"], *scores):
        inside = re.fullmatch(rf"{re.escape(str(folder))}[/\\](?P<file>[^/\\]+\.ckpt)", str(path), re.DOTALL)
        valid = inside is not None and (not fixed or PurePath(inside["file"]).stem == callback.filename)
        message = f"{name}: {format_value(path)} is not one of its checkpoints in {format_value(folder)}"
        require(valid or path == "", message)
    scalar = torch.zeros(())
    expected: dict[str, object] = {
        **{"monitor": callback.monitor, "dirpath": TEXT, "best_model_path": TEXT, "kth_best_model_path": TEXT},
        **{"last_model_path": TEXT, "best_k_models": dict.fromkeys(scores, scalar)},
        **{key: scalar for key in ("best_model_score", "current_score") if state[key] is not None},
        **({} if state["kth_value"] is None else {"kth_value": SCALAR}),
    }
    compare_items(state, expected, f"{name}.")
    if callback.save_top_k != 1:
        return
    require(bool(best), f"{name}.best_model_path is empty")
    if callback.monitor is None:
        require(not scores and score is None, f"{name} has a score without a monitored metric")
        return
    compare(score, scalar, f"{name}.best_model_score")
    values = [epoch[callback.monitor] for epoch in history if callback.monitor in epoch] or [score.item()]
    best_score = scalar_tensor(min(values) if callback.mode == "min" else max(values))
    expected = {"kth_best_model_path": best, "best_k_models": {best: best_score}}
    compare_items(state, {**expected, "best_model_score": best_score, "kth_value": best_score}, f"{name}.")


def _require_best(best: dict[str, Any], history: list[dict[str, float]], components: RunComponents) -> None:
    """Raise a StateError unless the best checkpoint so far can be tested after training."""
    classifier, images = components.classifier, range(len(components.datamodule.splits["val"]))
    last = max(components.trainer.max_epochs or 0, 1) - 1
    compare_items(best, {"epoch": between(0, last, whole=True), "state_dict": classifier.state_dict()}, "best.ckpt: ")
    logged = history[best["epoch"]] if best["epoch"] < len(history) else {}  # after a kill it may be an epoch ahead
    index = require_dict(best.get("validation"), "best.ckpt: validation").get("index")
    size = index.numel() if isinstance(index, Tensor) else 0
    expected = {
        "metrics": {name: logged.get(name, NUMBER) for name in _BEST_METRICS},
        "hyper_parameters": {
            name: value for name, value in classifier.hparams.items() if name not in _SET_BY_CALIBRATION
        },
        "validation": {
            "index": Rule(lambda value: _are_unique_indices(value, images), "unique image indices"),
            "logits": torch.empty(size, len(classifier.classes), device="meta"),
        },
    }
    for name, items in expected.items():
        compare_items(require_dict(best.get(name), f"best.ckpt: {name}"), items, f"best.ckpt: {name}.")


def _are_unique_indices(index: object, images: range) -> bool:
    if not (isinstance(index, Tensor) and is_dense(index) and index.ndim == 1 and 0 < len(index) <= len(images)):
        return False
    return index.dtype is torch.long and len({*index.tolist()} & {*images}) == len(index)
