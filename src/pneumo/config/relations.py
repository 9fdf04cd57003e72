"""Checks of settings that depend on each other and of the metrics that callbacks monitor."""

import re
from difflib import get_close_matches
from importlib.util import find_spec

from omegaconf import DictConfig

from pneumo.common.text import install_hint
from pneumo.config.constraints import Settings, show
from pneumo.config.fingerprints import stable_target
from pneumo.errors import ConfigError

_STAGES = ("train", "val")
# Stable names of pneumo's callbacks, which never end training before the last epoch
_NEVER_STOP = (
    "pneumo.checkpoints.RunCheckpoint",
    *(f"pneumo.callbacks.{name}" for name in ("AveragedWeights", "EpochLog", "LogLearningRate", "SeedEveryEpoch")),
    *("pneumo.callbacks.StopOnNonFiniteLoss", "pneumo.callbacks.make_progress_bar"),
    *(f"pneumo.training.callbacks.{name}" for name in ("History", "LiveProgress", "PlainProgress", "RecordConfig")),
)

# Logger -> the package that it requires, which is also the name of pneumo's extra
_PACKAGES = {
    "pneumo.training.mlflow_logger.MLFlowRunLogger": "mlflow",
    "pneumo.training.wandb_logger.WandbRunLogger": "wandb",
}


def directions() -> dict[str, str]:
    """Return the direction of improvement, `min` or `max`, of each logged metric."""
    from pneumo.metrics.definitions import METRICS  # here, since importing SciPy takes a second and is rarely needed

    return {"loss": "min", **{name: "max" if each.higher_is_better else "min" for name, each in METRICS.items()}}


def monitor_mode(monitor: str | None) -> str:
    """Return `min` or `max`, the direction in which a metric such as val/auroc improves; `min` for unknown metrics."""
    name = str(monitor).partition("/")[2]
    return "min" if name in ("", "loss") else directions().get(name, "min")


def check_monitors(cfg: DictConfig) -> None:
    """Raise a ConfigError if a callback monitors an unknown metric or has the wrong mode for its metric."""
    losses = [f"{stage}/loss" for stage in _STAGES]
    # `LogLearningRate` logs the rate under this name; either mode is valid for it.
    rates = [f"lr-{str(cfg.optimizer.get('_target_')).rpartition('.')[2]}"] if "lr" in cfg.callbacks else []
    for name, callback in cfg.callbacks.items():
        monitor = callback.get("monitor") if isinstance(callback, DictConfig) else None
        if monitor is None or monitor in rates:
            continue
        key = f"callbacks.{name}"
        if monitor not in losses and monitor not in (f"{stage}/{name}" for stage in _STAGES for name in directions()):
            raise ConfigError(
                f"{key}.monitor={monitor} must be a logged metric: train/NAME or val/NAME, where NAME is one of "
                f"{', '.join(directions())}{f'; or {rates[0]}' if rates else ''}. Use "
                f"{key}.monitor={_closest_metric(str(monitor))}, for example."
            )
        mode = callback.get("mode")
        if mode not in (None, monitor_mode(monitor)):
            raise ConfigError(
                f"{key}.mode={mode} must be {monitor_mode(monitor)}, since "
                f"{'lower' if monitor_mode(monitor) == 'min' else 'higher'} {monitor} is better. Remove {key}.mode."
            )


def _closest_metric(monitor: str) -> str:
    stage = "train" if monitor.startswith("train") else "val"
    name = re.split("[/_]", monitor, maxsplit=1)[-1]
    longer = [metric for metric in directions() if metric.startswith(name)]
    return f"{stage}/{[*longer, *get_close_matches(name, directions(), cutoff=0.0)][0]}"


def check_relations(settings: Settings) -> None:
    """Raise a ConfigError if settings of a resolved configuration contradict each other or have no effect."""
    data, trainer = settings["data"], settings["trainer"]
    if data.get("fold") and data["split"] != "kfold":
        raise ConfigError(
            f"data.fold={data['fold']} would have no effect: only data.split=kfold has folds. Set data.split=kfold, or "
            "remove data.fold."
        )
    if data.get("site") is not None and data["split"] != "site":
        raise ConfigError(
            f"data.site={show(data['site'])} would have no effect: only data.split=site leaves a site out. Set "
            "data.split=site, or remove data.site."
        )
    if data["split"] == "site" and "site" in data and data["site"] is None:
        raise ConfigError(
            "data.split=site requires data.site, the site whose images are the test set. Set data.site=NAME, or "
            "data.site=A,B,C in sweep.py -m to leave each site out in turn."
        )
    if data["task"] == "subtype" and len(data.get("classes", ())) > 2:
        raise ConfigError(
            f"data.task=subtype divides the second of two classes into bacterial and viral, but data.classes="
            f"{show(data['classes'])} has {len(data['classes'])}. Remove data.task, or list two classes."
        )
    for unit in ("epochs", "steps"):
        lowest, highest = trainer.get(f"min_{unit}") or 0, trainer.get(f"max_{unit}", -1)
        if 0 < highest < lowest:
            raise ConfigError(
                f"trainer.min_{unit}={lowest} must be at most trainer.max_{unit}={highest}. Lower trainer.min_{unit} "
                f"or raise trainer.max_{unit}."
            )
    _check_min_steps(trainer, settings["callbacks"])
    if trainer.get("gradient_clip_algorithm") and not trainer.get("gradient_clip_val"):
        raise ConfigError(
            f"trainer.gradient_clip_algorithm={trainer['gradient_clip_algorithm']} would have no effect without "
            "+trainer.gradient_clip_val, such as 1. Set it, or remove the algorithm."
        )
    _check_standard_checkpoints(settings["callbacks"], settings["paths"])
    _check_checkpoints(settings["callbacks"], trainer["max_epochs"])
    _check_packages(settings["logger"])


def _check_packages(loggers: Settings) -> None:
    for name, node in loggers.items():
        package = _PACKAGES.get(node["_target_"])
        if package is not None and find_spec(package) is None:
            raise ConfigError(
                f"logger.{name} requires {package}, which is not installed. Run {install_hint(package)}; or "
                "use logger=tensorboard or logger=csv, which need no installation."
            )


def _check_min_steps(trainer: Settings, callbacks: Settings) -> None:
    never_stops = all(stable_target(str(each["_target_"])) in _NEVER_STOP for each in callbacks.values())
    min_steps = trainer.get("min_steps")
    if min_steps and trainer.get("max_time") is None and never_stops:
        raise ConfigError(
            f"trainer.min_steps={min_steps} would have no effect, since nothing stops training before the last epoch. "
            "Remove it, or add +trainer.max_time or +callbacks.stop._target_="
            "lightning.pytorch.callbacks.EarlyStopping."
        )


def _check_standard_checkpoints(callbacks: Settings, paths: Settings) -> None:
    """Check the paths of best.ckpt and last.ckpt, which resuming and other commands rely on."""
    if "best" not in callbacks:
        raise ConfigError(
            "callbacks.best is missing from the configuration: it writes checkpoints/best.ckpt, which is tested. Do "
            "not remove it; set callbacks.best.monitor=null to test the last epoch."
        )
    for name in ("best", "last"):
        required = {"filename": name, "dirpath": f"{paths['run_dir']}/checkpoints"}
        for key, value in required.items() if name in callbacks else ():
            if (actual := callbacks[name].get(key)) != value:
                raise ConfigError(
                    f"callbacks.{name}.{key}={show(actual)} must be {value}: resuming and other commands read the file "
                    "there. Remove the override; another entry, such as callbacks.mine, may write elsewhere."
                )


def _check_checkpoints(callbacks: Settings, epochs: int) -> None:
    files: dict[tuple[str, str], str] = {}
    checkpoints = {name: callback for name, callback in callbacks.items() if callback.get("filename") is not None}
    for name, callback in checkpoints.items():
        file = str(callback.get("dirpath")), str(callback["filename"])
        if file in files:
            second, first = (files[file], name) if file[1] == name else (name, files[file])
            raise ConfigError(
                f"callbacks.{second}.filename={show(file[1])} must differ from callbacks.{first}.filename: they would "
                f"overwrite each other's checkpoints. Use another name, such as callbacks.{second}.filename={second}."
            )
        files[file] = str(name)
        if isinstance(interval := callback.get("every_n_epochs"), int) and interval > epochs:
            raise ConfigError(
                f"callbacks.{name}.every_n_epochs={interval} must be at most trainer.max_epochs={epochs}; otherwise no "
                "checkpoint would be written."
            )
    tested = next(iter(checkpoints), None)  # the first is Lightning's `checkpoint_callback`
    if tested is not None and checkpoints[tested].get("every_n_train_steps"):
        raise ConfigError(
            f"callbacks.{tested}.every_n_train_steps={checkpoints[tested]['every_n_train_steps']} must be left out: "
            "the tested checkpoint must be from the end of an epoch, with its metrics. Set it for callbacks.last."
        )
