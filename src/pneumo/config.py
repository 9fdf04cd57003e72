"""Checks of a composed configuration, made before anything heavy is imported or read."""

import math
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from pneumo.errors import ConfigError
from pneumo.monitors import check_monitors

THRESHOLDS = ("fixed", "youden", "accuracy", "sensitivity")
_Rule = tuple[Callable[[Any], bool], str]


def check_config(cfg: DictConfig) -> None:
    """Check the values that a user is likely to set.

    Raises:
        ConfigError: One of them cannot work; the message tells what could.
    """
    for key in _GROUPS:
        if key not in cfg:
            raise ConfigError(
                f"`{key}` is missing from the configuration: leave it in. Single entries can go, as in "
                "~logger.tensorboard or ~callbacks.progress; scheduler=constant does without a schedule."
            )
        if not isinstance(cfg[key], DictConfig):
            raise ConfigError(
                f"{key}={cfg[key]} must be a group of settings: leave it out, or set single ones by {key}.NAME=VALUE."
            )
    for name in map(str, cfg):
        if name not in _NAMES and (close := get_close_matches(name, _NAMES, 1, 0.8)):
            raise ConfigError(f"{name} is no setting, so it would have no effect. Leave it out, or set {close[0]}.")
    for key, (holds, rule) in _RULES.items():
        group, _, name = key.rpartition(".")
        settings = OmegaConf.select(cfg, group) if group else cfg
        if settings is not None and name in settings and not holds(value := settings[name]):
            raise ConfigError(f"{key}={value} must be {rule}.")
    if "fold" in cfg.data and cfg.data.fold and cfg.data.split != "kfold":
        raise ConfigError(
            f"data.fold={cfg.data.fold} would have no effect: only data.split=kfold has folds. Add it, or leave the "
            "fold out."
        )
    check_monitors(cfg)


def check_sweep(cfg: DictConfig) -> None:
    """Check the values that belong to a sweep as a whole.

    Raises:
        ConfigError: One of them cannot work; the message tells what could.
    """
    if cfg.ckpt_path is not None:
        raise ConfigError(
            f"ckpt_path={cfg.ckpt_path} is for train.py: a sweep finds the checkpoints of its own runs and goes on "
            "with those that are unfinished. Leave it out."
        )
    for key, (holds, rule) in _SWEEP_RULES.items():
        value = OmegaConf.select(cfg, key)
        if not holds(value):
            raise ConfigError(f"{key}={value} must be {rule}.")


def _number(lowest: float, highest: float = math.inf, above: bool = False) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:  # noqa: ANN401 (anything that YAML gives)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (lowest < value if above else lowest <= value) and value <= highest and math.isfinite(value)

    return holds


def _whole(lowest: int, highest: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def _optional(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _text(value: Any) -> bool:  # noqa: ANN401 (anything that YAML gives)
    return isinstance(value, str)


def _one_of(*names: object) -> Callable[[Any], bool]:
    return lambda value: value in names


def _bool(value: Any) -> bool:  # noqa: ANN401 (anything that YAML gives)
    return isinstance(value, bool)


def _switch(value: Any) -> bool:  # noqa: ANN401 (anything that YAML gives)
    return isinstance(value, bool) or value == "auto"


def _share_or_count(value: Any) -> bool:  # noqa: ANN401 (anything that YAML gives)
    return _whole(1)(value) or (isinstance(value, float) and 0 < value <= 1)


def _folder_name(value: Any) -> bool:  # noqa: ANN401 (anything that YAML gives)
    return value is not None and re.fullmatch(r"[A-Za-z0-9_+=-][A-Za-z0-9_+=. -]*", str(value)) is not None


_LIMIT = (_optional(_share_or_count), "a number of batches from 1, such as 4, a share up to 1.0, or null for all")
_SHARES = ("shift", "zoom", "stretch", "crop", "brightness", "contrast")
_RULES: dict[str, _Rule] = {
    "seed": (_whole(0, 2**32 - 1), "a whole number from 0 to 4294967295, such as seed=0"),
    "optimizer.lr": (_number(0, above=True), "a number above 0, such as optimizer.lr=0.001"),
    "trainer.max_epochs": (_whole(1), "a whole number from 1, such as trainer.max_epochs=20"),
    "data.root": (
        _optional(_text),
        "null for the default, or a path; one that reads as a number or a list is quoted, as in 'data.root=\"2024\"'",
    ),
    "data.image_size": (_whole(1), "a whole number of pixels, such as data.image_size=224"),
    "data.crop_pct": (_number(0.5, 1), "a share from 0.5 to 1, such as data.crop_pct=0.875"),
    "data.batch_size": (_whole(1), "a whole number from 1, such as data.batch_size=32"),
    "data.num_workers": (
        _optional(_whole(0)),
        "a whole number from 0, or null for one per CPU core, such as data.num_workers=2",
    ),
    "data.val_fraction": (
        _number(0, 0.5, above=True),
        "a share above 0 and at most 0.5, such as data.val_fraction=0.1",
    ),
    "data.classes": (
        lambda value: (
            isinstance(value, ListConfig)
            and len({str(name) for name in value}) == len(value) == 2
            and all(str(name).isprintable() for name in value)
        ),
        "the names of two folders in UTF-8, the positive class last, such as data.classes=[NORMAL,PNEUMONIA]",
    ),
    "data.task": (_one_of("pneumonia", "subtype"), "pneumonia or subtype"),
    "data.folds": (_whole(2), "a number of parts from 2, such as data.folds=5"),
    "data.fold": (_whole(0), "a whole number from 0, such as data.fold=0"),
    "data.train": (_whole(2), "a number of phantoms from 2, such as data.train=800"),
    "data.val": (_whole(2), "a number of phantoms from 2, such as data.val=100"),
    "data.test": (_whole(2), "a number of phantoms from 2, such as data.test=200"),
    "data.phantom_seed": (_whole(0), "a whole number from 0, such as data.phantom_seed=0"),
    "data.cache": (_bool, "true or false"),
    "figures": (_bool, "true or false"),
    "compile": (_bool, "true or false"),
    "features.cache": (_switch, "auto, true or false"),
    "features.compile": (_switch, "auto, true or false"),
    "features.views": (_whole(1), "a number of augmented views from 1, such as features.views=4"),
    "features.batch_size": (_optional(_whole(1)), "a number of images from 1, or null for one that fits the device"),
    "augment.rotation": (_number(0, 180), "degrees from 0 to 180, such as augment.rotation=5"),
    "augment.flip": (_number(0, 1), "a probability from 0 to 1, such as augment.flip=0.5"),
    **{f"augment.{name}": (_number(0, 0.9), f"a share from 0 to 0.9, such as augment.{name}=0.1") for name in _SHARES},
    "augment.blur": (_number(0, 4), "pixels from 0 to 4, such as augment.blur=1"),
    "augment.resample": (_number(0, 0.9), "a share from 0 to 0.9, such as augment.resample=0.4"),
    "augment.jpeg": (_whole(0, 100), "the lowest quality, from 1 to 100, or 0 for none, such as augment.jpeg=40"),
    "augment.share": (_number(0, 1, above=True), "a share above 0, at most 1, such as augment.share=0.5"),
    "loss.label_smoothing": (_number(0, 0.9), "a share from 0 to 0.9, such as loss.label_smoothing=0.1"),
    "loss.balance": (_bool, "true or false"),
    "fine_tuning.warm_up": (_bool, "true or false"),
    "fine_tuning.lr_decay": (_number(0, 1, above=True), "above 0 and at most 1, such as fine_tuning.lr_decay=0.5"),
    "decision.flip": (_bool, "true or false"),
    "decision.temperature": (_bool, "true or false"),
    "decision.threshold": (
        _one_of(*THRESHOLDS),
        f"{' or '.join(THRESHOLDS)}; a probability of your own is model.threshold=0.3",
    ),
    "decision.sensitivity": (
        _number(0, 1, above=True),
        "a share above 0, at most 1, such as decision.sensitivity=0.95",
    ),
    "decision.uncertain": (_number(0, 1), "a share from 0 to 1, such as decision.uncertain=0.1"),
    "model.threshold": (_number(0, 1), "a probability from 0 to 1, such as model.threshold=0.5"),
    "model.freeze": (_bool, "true or false"),
    "model.architecture": (_text, "SOURCE/NAME, such as model.architecture=timm/convnext_tiny"),
    "model.weights": (_optional(_text), "DEFAULT, a tag, pip:PACKAGE, a file's path, or null for random weights"),
    "model.head_path": (_optional(_text), "the path of a layer, such as model.head_path=fc, or null for the last one"),
    # Each checkpoint keeps what its own epoch's validation answered, by which it is decided.
    "trainer.check_val_every_n_epoch": (_one_of(1), "1: each epoch is validated"),
    "trainer.val_check_interval": (_one_of(None, 1.0), "null: an epoch is validated once, at its end"),
    "logger.tensorboard.projector": (_bool, "true or false"),
    "paths.output_dir": (
        lambda value: isinstance(value, str | int),
        "a path; one that reads as a list is quoted, as in 'paths.output_dir=\"[old]\"'",
    ),
    "ckpt_path": (_optional(_text), "a checkpoint's path, such as ckpt_path=RUN/checkpoints/last.ckpt"),
    "trainer.limit_train_batches": _LIMIT,
    "trainer.limit_val_batches": _LIMIT,
    # No share: one that is too small would end the run only after the training.
    "trainer.limit_test_batches": (_optional(_whole(1)), "a number of batches from 1, such as 4, or null for all"),
}
_SWEEP_RULES: dict[str, _Rule] = {
    "sweep.name": (_folder_name, "a folder's name of letters, digits and _+=.-, such as sweep.name=rates"),
    "sweep.overwrite": (_bool, "true or false"),
    "sweep.fail_fast": (_bool, "true or false"),
    "sweep.trials": (_optional(_whole(1)), "a whole number from 1, or null for all combinations of values"),
    "sweep.at_once": (_whole(1), "a whole number from 1, such as sweep.at_once=4"),
    "sweep.objective": (
        lambda value: value in ("val_loss", "val_accuracy", "val_auroc"),
        "val_loss, val_accuracy or val_auroc: a search goes by validation",
    ),
    "launcher.threads": (_optional(_whole(1)), "a whole number from 1, or null to leave it to the launcher"),
    "launcher.jobs": (_optional(_whole(1)), "a whole number from 1, such as launcher.jobs=2"),
    "launcher.cpus": (_optional(_whole(1)), "a whole number from 1, such as launcher.cpus=4"),
}
# fmt: off
_GROUPS = (
    "data", "augment", "features", "loss", "fine_tuning", "decision", "model", "optimizer", "scheduler", "callbacks",
    "logger", "trainer",
)
_NAMES = (*_GROUPS, "seed", "epochs", "ckpt_path", "figures", "compile", "paths", "choices", "experiment", "sweep")
# fmt: on
