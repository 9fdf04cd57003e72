"""Checks of settings that depend on each other, and of the metrics that callbacks monitor."""

import re
from difflib import get_close_matches

from omegaconf import DictConfig

from pneumo.config.constraints import Settings, show
from pneumo.config.fingerprints import stable_target
from pneumo.errors import ConfigError

_STAGES = ("train", "val")
# Callbacks of pneumo, by their stable names; none ends the training before its last epoch.
_NEVER_STOP = (
    "pneumo.checkpoints.RunCheckpoint",
    *(f"pneumo.callbacks.{name}" for name in ("AveragedWeights", "EpochLog", "LogLearningRate", "SeedEveryEpoch")),
    *("pneumo.callbacks.StopOnNonFiniteLoss", "pneumo.callbacks.make_progress_bar"),
    *(f"pneumo.training.callbacks.{name}" for name in ("History", "LiveProgress", "PlainProgress", "RecordConfig")),
)


def directions() -> dict[str, str]:
    """Return the direction of each metric that is logged, `min` or `max`."""
    from pneumo.metrics.definitions import METRICS  # not at the top: SciPy costs a second, and most monitor the loss

    return {"loss": "min", **{name: "max" if each.higher_is_better else "min" for name, each in METRICS.items()}}


def monitor_mode(monitor: str | None) -> str:
    """Return the direction in which a metric such as val/auroc improves, `min` or `max`; `min` for anything else."""
    name = str(monitor).partition("/")[2]
    return "min" if name in ("", "loss") else directions().get(name, "min")


def check_monitors(cfg: DictConfig) -> None:
    """Raise a ConfigError if a callback monitors a metric that does not exist, or its mode contradicts the metric."""
    losses = [f"{stage}/loss" for stage in _STAGES]
    # The name under which `LogLearningRate` logs the rate; no direction of it is better.
    rates = [f"lr-{str(cfg.optimizer.get('_target_')).rpartition('.')[2]}"] if "lr" in cfg.callbacks else []
    for name, callback in cfg.callbacks.items():
        monitor = callback.get("monitor") if isinstance(callback, DictConfig) else None
        if monitor is None or monitor in rates:
            continue
        key = f"callbacks.{name}"
        if monitor not in losses and monitor not in (f"{stage}/{name}" for stage in _STAGES for name in directions()):
            raise ConfigError(
                f"{key}.monitor={monitor} must be a metric that exists: train/NAME or val/NAME, where NAME is one of "
                f"{', '.join(directions())}{f'; or {rates[0]}' if rates else ''}. For example: "
                f"{key}.monitor={_closest_metric(str(monitor))}."
            )
        mode = callback.get("mode")
        if mode not in (None, monitor_mode(monitor)):
            raise ConfigError(
                f"{key}.mode={mode} must be {monitor_mode(monitor)}, since {monitor} is better the "
                f"{'lower' if monitor_mode(monitor) == 'min' else 'higher'} it is. Leave {key}.mode out."
            )


def _closest_metric(monitor: str) -> str:
    stage = "train" if monitor.startswith("train") else "val"
    name = re.split("[/_]", monitor, maxsplit=1)[-1]
    longer = [metric for metric in directions() if metric.startswith(name)]
    return f"{stage}/{[*longer, *get_close_matches(name, directions(), cutoff=0.0)][0]}"


def check_relations(settings: Settings) -> None:
    """Raise a ConfigError if two values of a resolved configuration contradict each other, or one has no effect."""
    data, trainer = settings["data"], settings["trainer"]
    if data.get("fold") and data["split"] != "kfold":
        raise ConfigError(
            f"data.fold={data['fold']} would have no effect: only data.split=kfold has folds. Add it, or leave the "
            "fold out."
        )
    for unit in ("epochs", "steps"):
        least, most = trainer.get(f"min_{unit}") or 0, trainer.get(f"max_{unit}", -1)
        if 0 < most < least:
            raise ConfigError(
                f"trainer.min_{unit}={least} must be at most trainer.max_{unit}={most}: lower it, or raise that one."
            )
    _check_least_steps(trainer, settings["callbacks"])
    if trainer.get("gradient_clip_algorithm") and not trainer.get("gradient_clip_val"):
        raise ConfigError(
            f"trainer.gradient_clip_algorithm={trainer['gradient_clip_algorithm']} would have no effect without "
            "+trainer.gradient_clip_val, such as 1. Add it, or leave the algorithm out."
        )
    _check_own_checkpoints(settings["callbacks"], settings["paths"])
    _check_checkpoints(settings["callbacks"], trainer["max_epochs"])


def _check_least_steps(trainer: Settings, callbacks: Settings) -> None:
    whole = all(stable_target(str(each["_target_"])) in _NEVER_STOP for each in callbacks.values())
    least = trainer.get("min_steps")
    if least and trainer.get("max_time") is None and whole:
        raise ConfigError(
            f"trainer.min_steps={least} would have no effect, since nothing ends the training before its last epoch. "
            "Leave it out, or add what does: +trainer.max_time, or +callbacks.stop._target_="
            "lightning.pytorch.callbacks.EarlyStopping."
        )


def _check_own_checkpoints(callbacks: Settings, paths: Settings) -> None:
    """Check the checkpoints that resumption and every other command look for by their names."""
    if "best" not in callbacks:
        raise ConfigError(
            "callbacks.best is missing from the configuration: it writes checkpoints/best.ckpt, which is tested. Leave "
            "it in; callbacks.best.monitor=null makes it the last epoch."
        )
    for name in ("best", "last"):
        own = {"filename": name, "dirpath": f"{paths['run_dir']}/checkpoints"}
        for key, value in own.items() if name in callbacks else ():
            if (given := callbacks[name].get(key)) != value:
                raise ConfigError(
                    f"callbacks.{name}.{key}={show(given)} must be {value}, where other commands and a resumed run "
                    "look for it. Leave it out; another entry, such as callbacks.mine, may write elsewhere."
                )


def _check_checkpoints(callbacks: Settings, epochs: int) -> None:
    files: dict[tuple[str, str], str] = {}
    checkpoints = {name: callback for name, callback in callbacks.items() if callback.get("filename") is not None}
    for name, callback in checkpoints.items():
        file = str(callback.get("dirpath")), str(callback["filename"])
        if file in files:
            odd, other = (files[file], name) if file[1] == name else (name, files[file])
            raise ConfigError(
                f"callbacks.{odd}.filename={show(file[1])} must differ from callbacks.{other}.filename, since each "
                f"would overwrite the other's checkpoints: choose another name, such as callbacks.{odd}.filename={odd}."
            )
        files[file] = str(name)
        if isinstance(interval := callback.get("every_n_epochs"), int) and interval > epochs:
            raise ConfigError(
                f"callbacks.{name}.every_n_epochs={interval} must be at most trainer.max_epochs={epochs}, or no "
                "checkpoint would be written."
            )
    tested = next(iter(checkpoints), None)  # Lightning's `checkpoint_callback`
    if tested is not None and checkpoints[tested].get("every_n_train_steps"):
        raise ConfigError(
            f"callbacks.{tested}.every_n_train_steps={checkpoints[tested]['every_n_train_steps']} must be left out: "
            "the tested checkpoint is one of a whole epoch, with its metrics. Set it for callbacks.last."
        )
