"""The training state in a checkpoint, checked before a run resumes from it: Lightning restores it as it is."""

import math
import re
from pathlib import PurePath
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, ProgressBar, Timer, WeightAveraging
from packaging.version import InvalidVersion, Version
from torch import Tensor

from pneumo.building import RunComponents
from pneumo.callbacks import AveragedWeights, History
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.models.classifier import Classifier
from pneumo.optimizer_state import Place, require_optimization, state_indices
from pneumo.state_forms import (
    require,
    require_count,
    require_dict,
    require_equal,
    require_form,
    require_number,
    require_tensor,
    require_tensors,
    show,
)

_OLDEST = Version("2.0")  # of Lightning: it converts older checkpoints, which pneumo never wrote
_LONGEST = 1e9  # seconds of training, 30 years
_LOOK_ON = (EarlyStopping, ModelCheckpoint, ProgressBar, Timer, WeightAveraging)  # callbacks that set no rates


def require_training_state(
    checkpoint: dict[str, Any],
    best: dict[str, Any],
    components: RunComponents,
) -> None:
    """Raise a FormError unless a checkpoint holds what this run would have stored after some epoch.

    Args:
        checkpoint: To resume from.
        best: The best one so far.
        components: As built.
    """
    datamodule, classifier, trainer = components.datamodule, components.classifier, components.trainer
    _require_version(checkpoint.get("pytorch-lightning_version"))
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined] # set by a connector
    timers = [callback for callback in callbacks if isinstance(callback, Timer)]
    # Limits of steps and of time can cut the last epoch, which then may lack its validation too.
    whole = trainer.max_steps == -1 and all(timer.time_remaining() is None for timer in timers)
    epochs, steps, scheduled = _require_epochs(checkpoint, len(datamodule.splits["train"]), trainer, whole)
    name = type(datamodule).__qualname__
    require_equal(checkpoint.get(name), {"epoch": epochs}, name)
    states = require_dict(checkpoint.get("callbacks"), "callbacks")
    history = _find_history(states, callbacks, epochs)
    for callback in callbacks:
        if form := callback.state_dict():
            state = require_dict(states.get(callback.state_key), f"callbacks.{callback.state_key}")
            _require_callback(callback, state, form, history, steps)
    _require_best(best, history, datamodule, classifier, trainer)
    exact = whole and all(map(_is_known, callbacks))
    place = Place(epochs, steps, scheduled, max(trainer.max_epochs or 0, epochs), exact)
    require_optimization(checkpoint, classifier, place)
    require(state_indices(checkpoint) == state_indices(best), "optimizer_states lacks the state of some parameters")
    weights = classifier.state_dict()
    _require_additions(checkpoint, weights, callbacks, steps, trainer)
    require_tensors(checkpoint.get("state_dict"), weights, "state_dict")
    require_tensors(best.get("state_dict"), weights, "best.ckpt: state_dict")


def _is_known(callback: Callback) -> bool:
    return type(callback).__module__.startswith("pneumo.") or isinstance(callback, _LOOK_ON)


def _require_version(version: object) -> None:
    try:
        known = isinstance(version, str) and Version(version) >= _OLDEST
    except InvalidVersion:
        known = False
    require(known, f"pytorch-lightning_version={show(version)} is no version from {_OLDEST}")


def _require_epochs(checkpoint: dict[str, Any], images: int, trainer: Trainer, whole: bool) -> tuple[int, int, int]:
    """Return the numbers of epochs, of steps and of steps of the schedule, which progress and epoch agree about."""
    most = trainer.max_epochs
    assert most is not None
    epochs = 1 + require_count(checkpoint.get("epoch"), "epoch", most - 1 if most > 0 else 2**40)
    loops = require_dict(checkpoint.get("loops"), "loops")
    progress = require_dict(loops.get("fit_loop"), "loops.fit_loop")
    require_form(progress, trainer.fit_loop.state_dict(), "loops.fit_loop")
    counts = {"ready": epochs, "started": epochs, "processed": epochs, "completed": epochs - 1}  # it is at its end
    require_equal(progress["epoch_progress"], {"total": counts, "current": counts}, "loops.fit_loop.epoch_progress")
    optimization = progress["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    batches = _require_progress(progress["epoch_loop.batch_progress"], "batch_progress", epochs, whole)
    steps = _require_progress(optimization["step"], "optim_progress.step", epochs, whole)
    require_equal(_require_progress(optimization["zero_grad"], "zero_grad", epochs, whole), steps, "zero_grad")
    scheduled = _require_progress(progress["epoch_loop.scheduler_progress"], "scheduler_progress", epochs, False)
    _require_progress(progress["epoch_loop.val_loop.batch_progress"], "val_loop.batch_progress", 1, whole)
    manual = progress["epoch_loop.manual_optimization.optim_step_progress"]
    require_equal(_require_progress(manual, "manual_optimization", epochs, whole), 0, "manual_optimization")
    for loop in ("epoch_loop", "epoch_loop.val_loop"):
        require(progress[f"{loop}.batch_progress"]["is_last_batch"] or not whole, f"{loop} is within an epoch")
    require(0 < steps <= batches <= epochs * images, f"{batches} batches and {steps} steps in {epochs} epochs")
    require_equal(progress["epoch_loop.state_dict"]["_batches_that_stepped"], steps, "_batches_that_stepped")
    require_equal(checkpoint.get("global_step"), steps, "global_step")
    return epochs, steps, scheduled


def _require_progress(progress: dict[str, Any], name: str, epochs: int, whole: bool) -> int:
    """Return the total of a count that is complete and, if all epochs are whole, grew by as much in each."""
    total, current = ({*progress[part].values()} for part in ("total", "current"))
    require(len(total) == len(current) == 1, f"loops.fit_loop: {name} is not complete")
    (all_epochs,), (last,) = total, current
    require_count(all_epochs, name, 2**40)
    require_count(last, name, all_epochs if whole else 2**40)  # a cut epoch keeps the validation before it
    require(not whole or all_epochs == last * epochs, f"loops.fit_loop: {name} is {all_epochs} in {epochs} epochs")
    return int(all_epochs)


def _find_history(states: dict[str, Any], callbacks: list[Callback], epochs: int) -> list[dict[str, float]]:
    callback = next(callback for callback in callbacks if isinstance(callback, History))
    state = require_dict(states.get(callback.state_key), "callbacks.History")
    history = state.get("epochs")
    require(isinstance(history, list) and len(history) == epochs, f"callbacks.History must have {epochs} epochs")
    assert isinstance(history, list)
    for number, epoch in enumerate(history, 1):
        for name, value in require_dict(epoch, "callbacks.History.epochs").items():
            figure = require_number(value, f"callbacks.History.epochs.{name}")
            most = 1 if name.endswith(("accuracy", "auroc")) else math.inf
            require(0 <= figure <= most, f"callbacks.History.epochs.{name}={show(value)} is out of range")
        require(epoch.keys() == history[0].keys(), f"callbacks.History.epochs differ in epoch {number}")
        require_equal(epoch.get("epoch"), number, "callbacks.History.epochs.epoch")
    return history


def _require_callback(
    callback: Callback, state: dict[str, Any], form: dict[str, Any], history: list[dict[str, float]], steps: int
) -> None:
    name = f"callbacks.{callback.state_key}"
    if isinstance(callback, History) or not _is_known(callback):  # the state of others may change its form
        return
    if isinstance(callback, ModelCheckpoint):
        _require_paths(callback, state, form)
        _require_score(callback, state, history)
        return
    require_form(state, form, name)
    if isinstance(callback, Timer):
        for stage, seconds in state["time_elapsed"].items():
            require(0 <= seconds <= _LONGEST, f"{name}.{stage}={show(seconds)} is no number of seconds")
        require(state["time_elapsed"]["train"] > 0, f"{name}.train must be above 0")
    if isinstance(callback, AveragedWeights):
        require_equal(state["latest_update_step"], steps, f"{name}.latest_update_step")


def _require_paths(callback: ModelCheckpoint, state: dict[str, Any], form: dict[str, Any]) -> None:
    """Raise a FormError unless all paths are of checkpoints in the one folder that the callback wrote to."""
    name = f"callbacks.{callback.state_key}"
    require(state.keys() == form.keys(), f"{name} must have {', '.join(form)}")
    folder = state["dirpath"]
    best = require_dict(state["best_k_models"], f"{name}.best_k_models")
    paths = [state[key] for key in ("best_model_path", "kth_best_model_path", "last_model_path")]
    require(all(isinstance(path, str) for path in (folder, *paths)), f"{name} has paths that are no text")
    for path in filter(None, [*paths, *best]):
        inside = re.fullmatch(rf"{re.escape(folder)}[/\\](?P<file>[^/\\]+\.ckpt)", path, re.DOTALL)
        require(inside is not None, f"{name} names {show(path)}, which is no checkpoint in its folder {show(folder)}")
        assert inside is not None
        fixed = callback.filename is not None and "{" not in callback.filename
        own = not fixed or PurePath(inside["file"]).stem == callback.filename
        require(own, f"{name} names {show(path)}, which is another callback's")
    for score in best.values():
        require_tensor(score, torch.zeros(()), f"{name}.best_k_models")
    for key in ("best_model_score", "current_score", "kth_value"):
        if state[key] is not None:
            require_tensor(state[key], torch.zeros(()), f"{name}.{key}", finite=key != "kth_value")


def _require_score(callback: ModelCheckpoint, state: dict[str, Any], history: list[dict[str, float]]) -> None:
    """Raise a FormError unless the best score is that of the best epoch."""
    name = f"callbacks.{callback.state_key}"
    require_equal(state["monitor"], callback.monitor, f"{name}.monitor")
    if callback.save_top_k != 1:
        return
    require(bool(state["best_model_path"]), f"{name}.best_model_path is empty")
    if callback.monitor is None:
        require(not state["best_k_models"] and state["best_model_score"] is None, f"{name} has a score of nothing")
        return
    path = state["best_model_path"]
    score = state["best_model_score"]
    require_equal(state["kth_best_model_path"], path, f"{name}.kth_best_model_path")
    require_equal(state["kth_value"], score, f"{name}.kth_value")
    require_equal(state["best_k_models"], {path: score}, f"{name}.best_k_models")
    if scores := [epoch[callback.monitor] for epoch in history if callback.monitor in epoch]:
        best = min(scores) if callback.mode == "min" else max(scores)
        require_equal(score.item() if isinstance(score, Tensor) else score, best, f"{name}.best_model_score")


def _require_additions(
    checkpoint: dict[str, Any], weights: dict[str, Tensor], callbacks: list[Callback], steps: int, trainer: Trainer
) -> None:
    """Raise a FormError unless averages of weights and the scale of losses, if there are any, can be restored."""
    averaged = [callback for callback in callbacks if isinstance(callback, WeightAveraging)]
    if averaged:
        require_tensors(checkpoint.get("current_model_state"), weights, "current_model_state")
        count = torch.zeros((), dtype=torch.long)
        require_tensors(checkpoint.get("averaging_state"), {"n_averaged": count}, "averaging_state")
        if isinstance(averaged[0], AveragedWeights):
            require_equal(checkpoint["averaging_state"]["n_averaged"].item(), steps, "averaging_state.n_averaged")
    plugin = trainer.precision_plugin
    if (name := type(plugin).__qualname__) in checkpoint:
        require_form(checkpoint[name], plugin.state_dict(), name)
        require(all(value >= 0 for value in checkpoint[name].values()), f"{name} has values below 0")
    for key in ("native_amp_scaling_state", "outliers"):  # restored if there; pneumo writes the second on testing
        require(key not in checkpoint, f"{key} is not of a training state")


def _require_best(
    best: dict[str, Any],
    history: list[dict[str, float]],
    datamodule: ChestXrayDataModule,
    classifier: Classifier,
    trainer: Trainer,
) -> None:
    """Raise a FormError unless the best checkpoint so far can be tested at the end."""
    number = require_count(best.get("epoch"), "best.ckpt: epoch", max(trainer.max_epochs or 0, 1) - 1)
    metrics = require_dict(best.get("metrics"), "best.ckpt: metrics")
    for name in ("train/accuracy", "val/loss", "val/accuracy", "val/auroc"):
        require_number(metrics.get(name), f"best.ckpt: metrics.{name}")
        if number < len(history) and name in history[number]:  # a kill may leave it an epoch ahead
            require_equal(metrics[name], history[number][name], f"best.ckpt: metrics.{name}")
    stored = require_dict(best.get("hyper_parameters"), "best.ckpt: hyper_parameters")
    for name, value in classifier.hparams.items():
        if name not in ("temperature", "threshold", "margin"):  # which testing sets
            require(name in stored, f"best.ckpt: hyper_parameters lacks {name}")
            require_equal(stored[name], value, f"best.ckpt: hyper_parameters.{name}")
    validation = require_dict(best.get("validation"), "best.ckpt: validation")
    index, logits = validation.get("index"), validation.get("logits")
    images = len(datamodule.splits["val"])
    require(
        isinstance(index, Tensor) and 0 < index.numel() <= images, "best.ckpt: validation.index is no list of images"
    )
    assert isinstance(index, Tensor)
    require_tensor(index, torch.zeros(index.numel(), dtype=torch.long), "best.ckpt: validation.index")
    require(len({*index.tolist()} & {*range(images)}) == len(index), "best.ckpt: validation.index is no list of images")
    require_tensor(logits, torch.zeros(len(index), len(classifier.classes)), "best.ckpt: validation.logits")
