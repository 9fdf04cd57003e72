"""Monitored metrics: which ones exist, and the direction in which each improves."""

import re
from difflib import get_close_matches

from omegaconf import DictConfig, OmegaConf

from pneumo.errors import ConfigError

DIRECTIONS = {
    **dict.fromkeys(("loss", "ece", "brier"), "min"),
    **dict.fromkeys(
        ("accuracy", "auroc", "sensitivity", "specificity", "balanced_accuracy", "auprc", "f1", "mcc"), "max"
    ),
}


def monitor_mode(monitor: str | None) -> str:
    """Return the direction in which a metric such as val/auroc improves, `min` or `max`; `min` for anything else."""
    return DIRECTIONS.get(str(monitor).partition("/")[2], "min")


def check_monitors(cfg: DictConfig) -> None:
    """Check the metrics that callbacks monitor.

    Raises:
        ConfigError: A metric does not exist, or a mode contradicts it.
    """
    metrics = [f"{stage}/{name}" for stage in ("train", "val") for name in DIRECTIONS]
    # The name under which `LogLearningRate` logs the rate; no direction of it is better.
    rates = [f"lr-{str(cfg.optimizer.get('_target_')).rpartition('.')[2]}"] if "lr" in cfg.callbacks else []
    for name, callback in cfg.callbacks.items():
        monitor = callback.get("monitor") if isinstance(callback, DictConfig) else None
        if monitor is None or monitor in rates:
            continue
        key = f"callbacks.{name}"
        if monitor not in metrics:
            raise ConfigError(
                f"{key}.monitor={monitor} must be a metric that exists: train/NAME or val/NAME, where NAME is one of "
                f"{', '.join(DIRECTIONS)}{f'; or {rates[0]}' if rates else ''}. For example: "
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
    longer = [metric for metric in DIRECTIONS if metric.startswith(name)]
    return f"{stage}/{[*longer, *get_close_matches(name, DIRECTIONS, cutoff=0.0)][0]}"


OmegaConf.register_new_resolver("monitor_mode", monitor_mode, replace=True)
