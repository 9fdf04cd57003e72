"""Monitored metrics: which ones exist, and the direction in which each improves."""

import re
from difflib import get_close_matches

from omegaconf import DictConfig, OmegaConf

from pneumo.errors import ConfigError


def directions() -> dict[str, str]:
    """Return the direction of each metric that is logged, `min` or `max`."""
    from pneumo.evaluation.metrics import METRICS  # not at the top: SciPy costs a second, and most monitor the loss

    return {"loss": "min", **{name: "max" if each.higher_is_better else "min" for name, each in METRICS.items()}}


def monitor_mode(monitor: str | None) -> str:
    """Return the direction in which a metric such as val/auroc improves, `min` or `max`; `min` for anything else."""
    name = str(monitor).partition("/")[2]
    return "min" if name in ("", "loss") else directions().get(name, "min")


def check_monitors(cfg: DictConfig) -> None:
    """Check the metrics that callbacks monitor.

    Raises:
        ConfigError: A metric does not exist, or a mode contradicts it.
    """
    losses = [f"{stage}/loss" for stage in ("train", "val")]
    # The name under which `LogLearningRate` logs the rate; no direction of it is better.
    rates = [f"lr-{str(cfg.optimizer.get('_target_')).rpartition('.')[2]}"] if "lr" in cfg.callbacks else []
    for name, callback in cfg.callbacks.items():
        monitor = callback.get("monitor") if isinstance(callback, DictConfig) else None
        if monitor is None or monitor in rates:
            continue
        key = f"callbacks.{name}"
        if monitor not in losses and monitor not in [
            f"{stage}/{name}" for stage in ("train", "val") for name in directions()
        ]:
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


OmegaConf.register_new_resolver("monitor_mode", monitor_mode, replace=True)
