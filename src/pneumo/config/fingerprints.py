"""Hashes of a configuration, including those that earlier versions computed for the same settings.

Hashes use the stable class names in `STABLE_TARGETS`. `CheckOutputFolder` and the logging classes are not listed there,
since Hydra and `logging` import them by their paths in conf/.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pneumo.common.input_format import ADDED_CHOICES
from pneumo.common.plain_data import hash_plain

# Stable name (in hashes, the schema and configurations of earlier versions) -> current path of the class
STABLE_TARGETS = {
    "pneumo.callbacks.AveragedWeights": "pneumo.training.callbacks.AveragedWeights",
    "pneumo.callbacks.EpochLog": "pneumo.training.callbacks.EpochLog",
    "pneumo.callbacks.LogLearningRate": "pneumo.training.callbacks.LogLearningRate",
    "pneumo.callbacks.SeedEveryEpoch": "pneumo.training.callbacks.SeedEveryEpoch",
    "pneumo.callbacks.StopOnNonFiniteLoss": "pneumo.training.callbacks.StopOnNonFiniteLoss",
    "pneumo.callbacks.make_progress_bar": "pneumo.training.callbacks.make_progress_bar",
    "pneumo.checkpoints.RunCheckpoint": "pneumo.training.checkpoints.RunCheckpoint",
    "pneumo.data.augmentation.Augmentation": "pneumo.data.augmentation.Augmentation",
    "pneumo.data.datamodule.ChestXrayDataModule": "pneumo.data.datamodule.ChestXrayDataModule",
    "pneumo.data.synthetic.SyntheticDataModule": "pneumo.data.datamodule.SyntheticDataModule",
    "pneumo.data.table_datamodule.TableDataModule": "pneumo.data.table_datamodule.TableDataModule",
    "pneumo.models.fine_tuning.OneCycle": "pneumo.models.fine_tuning.OneCycle",
    "pneumo.tensorboard.RunLogger": "pneumo.training.loggers.RunLogger",
    "pneumo.training.csv_logger.CSVRunLogger": "pneumo.training.csv_logger.CSVRunLogger",
    "pneumo.training.mlflow_logger.MLFlowRunLogger": "pneumo.training.mlflow_logger.MLFlowRunLogger",
    "pneumo.training.wandb_logger.WandbRunLogger": "pneumo.training.wandb_logger.WandbRunLogger",
}
# Prefixes of settings that affect only folders, displayed output or speed, not results
_IRRELEVANT = (
    *("paths.", "ckpt_path", "logger.", "sweep.", "launcher.", "data.root", "data.table", "data.num_workers"),
    "data.cache",
    *("features.compile", "features.batch_size", "compile", "figures"),
    *("callbacks.lr.", "callbacks.log.", "callbacks.progress."),
)
# Settings that always have a column in TensorBoard's HPARAMS table, under the same or another name
HPARAMS_KEYS = (
    *("model", "optimizer", "seed", "experiment", "data", "optimizer.lr", "data.batch_size", "data.image_size"),
    *("epochs", "trainer.max_epochs"),
)


# Settings of later versions with their defaults, which hashes omit: those of earlier runs stay the same
_ADDED_SETTINGS = {
    **dict.fromkeys(("augment.noise", "augment.gamma", "augment.border"), 0),
    **{f"data.{name}": values[0] for name, values in ADDED_CHOICES.items()},
    "model.lung_crop": None,
}


def _is_added_default(key: str, value: object) -> bool:
    return key in _ADDED_SETTINGS and value == _ADDED_SETTINGS[key]


def stable_target(path: str) -> str:
    """Return the stable name of a `_target_`, which hashes and the schema use."""
    return next((stable for stable, current in STABLE_TARGETS.items() if current == path), path)


def current_target(path: str) -> str:
    """Return the current import path of a `_target_`, which may come from an earlier version."""
    return STABLE_TARGETS.get(path, path)


def _rename_targets(tree: Any, rename: Callable[[str], str]) -> Any:  # noqa: ANN401 (any YAML value)
    """Return a copy of plain values in which each `_target_` is renamed."""
    if isinstance(tree, list):
        return [_rename_targets(each, rename) for each in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: rename(value) if key == "_target_" and isinstance(value, str) else _rename_targets(value, rename)
        for key, value in tree.items()
    }


def with_current_targets(cfg: DictConfig) -> DictConfig:
    """Return an unresolved copy of a configuration in which each `_target_` is a current import path."""
    return OmegaConf.create(_rename_targets(OmegaConf.to_container(cfg), current_target))  # type: ignore[no-any-return]


def relevant_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that affect a run's results: dotted keys, plain values, stable class names."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    stable = _rename_targets(plain, stable_target)
    return {key: value for key, value in flatten(stable) if affects_results(key) and not _is_added_default(key, value)}


def affects_results(key: str) -> bool:
    """Return whether a setting, or a group of settings, affects a run's results."""
    return not f"{key}.".startswith(_IRRELEVANT) and not key.endswith(".dirpath")


def config_hash(cfg: DictConfig) -> str:
    """Compute the hash of all settings that affect a run's results, 16 hex digits."""
    return hash_plain(relevant_config(cfg))


def settings_hash(cfg: DictConfig) -> str:
    """Compute the hash of all settings that affect a run's results except seed and fold, 16 hex digits."""
    repeated = ("seed", "fold")
    settings = relevant_config(cfg).items()
    return hash_plain({key: value for key, value in settings if key.rpartition(".")[2] not in repeated})


def recorded_settings(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every form in which some version may have recorded a run's settings; the current form is the first.

    Earlier versions recorded `optimizer.fused` as null if gradients were clipped in mixed precision.
    """
    precision = str(settings.get("trainer.precision"))
    clipped = settings.get("trainer.gradient_clip_val") and (precision == "auto" or "mixed" in precision)
    if clipped and settings.get("optimizer.fused") is not None:
        return [settings, {**settings, "optimizer.fused": None}]
    return [settings]


def recorded_hashes(cfg: DictConfig) -> frozenset[str]:
    """Return every `config_hash` that some version may have stored with the results of a configuration."""
    return frozenset(map(hash_plain, recorded_settings(relevant_config(cfg))))


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys and the values of nested dictionaries."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def other_overrides(overrides: Sequence[str]) -> str:
    """Return the overrides that affect a run's results and have no column of their own, joined by spaces."""
    keys = {override: override.partition("=")[0].lstrip("+~") for override in overrides}
    return " ".join(override for override, key in keys.items() if key not in HPARAMS_KEYS and affects_results(key))
