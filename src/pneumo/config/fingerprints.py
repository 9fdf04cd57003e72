"""Fingerprints of a configuration: the hashes of this version, and those of earlier versions for the same settings.

Hashes use the stable names of classes in `STABLE_TARGETS`. `CheckOutputFolder` and the classes of log records are not
among them, since Hydra and `logging` import these by their paths in conf/.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pneumo.common.plain_data import hash_plain

# The name in hashes, in the schema and in configurations of earlier versions; and the path of the class today.
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
    "pneumo.models.fine_tuning.OneCycle": "pneumo.models.fine_tuning.OneCycle",
    "pneumo.tensorboard.RunLogger": "pneumo.training.loggers.RunLogger",
}
# Prefixes of settings that only choose folders, what is shown, or speed.
_INDIFFERENT = (
    *("paths.", "ckpt_path", "logger.", "sweep.", "launcher.", "data.root", "data.num_workers", "data.cache"),
    *("features.compile", "features.batch_size", "compile", "figures"),
    *("callbacks.lr.", "callbacks.log.", "callbacks.progress."),
)
# Settings with a column in every row, under the same or another name.
COLUMNS = (
    *("model", "optimizer", "seed", "experiment", "data", "optimizer.lr", "data.batch_size", "data.image_size"),
    *("epochs", "trainer.max_epochs"),
)


def stable_target(path: str) -> str:
    """Return the name that stands for a `_target_` in hashes and in the schema."""
    return next((stable for stable, present in STABLE_TARGETS.items() if present == path), path)


def present_target(path: str) -> str:
    """Return the path from which a `_target_`, perhaps of an earlier version, is imported."""
    return STABLE_TARGETS.get(path, path)


def _rename_targets(tree: Any, rename: Callable[[str], str]) -> Any:  # noqa: ANN401 (anything that YAML gives)
    """Return plain values with each `_target_` in them renamed."""
    if isinstance(tree, list):
        return [_rename_targets(each, rename) for each in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: rename(value) if key == "_target_" and isinstance(value, str) else _rename_targets(value, rename)
        for key, value in tree.items()
    }


def with_present_targets(cfg: DictConfig) -> DictConfig:
    """Return a copy of a configuration whose classes can be imported, references unresolved."""
    return OmegaConf.create(_rename_targets(OmegaConf.to_container(cfg), present_target))  # type: ignore[no-any-return]


def decisive_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that decide a run's numbers: dotted keys, plain values, classes by their stable names."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    stable = _rename_targets(plain, stable_target)
    return {key: value for key, value in flatten(stable) if is_decisive(key)}


def is_decisive(key: str) -> bool:
    """Return whether a setting, or a group of them, decides a run's numbers."""
    return not f"{key}.".startswith(_INDIFFERENT) and not key.endswith(".dirpath")


def config_hash(cfg: DictConfig) -> str:
    """Hash what decides a run's numbers, 16 hex digits."""
    return hash_plain(decisive_config(cfg))


def settings_hash(cfg: DictConfig) -> str:
    """Hash what decides a run's numbers beside its seed and its fold, 16 hex digits."""
    repeated = ("seed", "fold")
    settings = decisive_config(cfg).items()
    return hash_plain({key: value for key, value in settings if key.rpartition(".")[2] not in repeated})


def recorded_settings(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the forms in which a run's settings may have been recorded, the present one first.

    Earlier versions recorded `optimizer.fused` as null where gradients were clipped in mixed precision.
    """
    precision = str(settings.get("trainer.precision"))
    clipped = settings.get("trainer.gradient_clip_val") and (precision == "auto" or "mixed" in precision)
    if clipped and settings.get("optimizer.fused") is not None:
        return [settings, {**settings, "optimizer.fused": None}]
    return [settings]


def recorded_hashes(cfg: DictConfig) -> frozenset[str]:
    """Return every `config_hash` under which results of a configuration may have been written."""
    return frozenset(map(hash_plain, recorded_settings(decisive_config(cfg))))


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys and the values of nested dictionaries."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def other_overrides(overrides: Sequence[str]) -> str:
    """Return the overrides that decide a run's numbers and have no column of their own, as one text."""
    keys = {override: override.partition("=")[0].lstrip("+~") for override in overrides}
    return " ".join(override for override, key in keys.items() if key not in COLUMNS and is_decisive(key))
