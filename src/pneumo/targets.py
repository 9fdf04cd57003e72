"""Stable names of the classes that configurations name, so that a class that moves changes no hash.

`CheckOutputFolder` and the classes of log records are absent: Hydra and `logging` import these by the paths in conf/.
"""

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

# The name in hashes, in the schema and in configurations of earlier versions; and the path of the class today.
STABLE_TARGETS = {
    "pneumo.callbacks.AveragedWeights": "pneumo.callbacks.AveragedWeights",
    "pneumo.callbacks.EpochLog": "pneumo.callbacks.EpochLog",
    "pneumo.callbacks.LogLearningRate": "pneumo.callbacks.LogLearningRate",
    "pneumo.callbacks.SeedEveryEpoch": "pneumo.callbacks.SeedEveryEpoch",
    "pneumo.callbacks.StopOnNonFiniteLoss": "pneumo.callbacks.StopOnNonFiniteLoss",
    "pneumo.callbacks.make_progress_bar": "pneumo.callbacks.make_progress_bar",
    "pneumo.checkpoints.RunCheckpoint": "pneumo.checkpoints.RunCheckpoint",
    "pneumo.data.augmentation.Augmentation": "pneumo.data.augmentation.Augmentation",
    "pneumo.data.datamodule.ChestXrayDataModule": "pneumo.data.datamodule.ChestXrayDataModule",
    "pneumo.data.synthetic.SyntheticDataModule": "pneumo.data.synthetic.SyntheticDataModule",
    "pneumo.models.fine_tuning.OneCycle": "pneumo.models.fine_tuning.OneCycle",
    "pneumo.tensorboard.RunLogger": "pneumo.tensorboard.RunLogger",
}


def stable_target(path: str) -> str:
    """Return the name that stands for a `_target_` in hashes and in the schema."""
    return next((stable for stable, present in STABLE_TARGETS.items() if present == path), path)


def present_target(path: str) -> str:
    """Return the path from which a `_target_`, perhaps of an earlier version, is imported."""
    return STABLE_TARGETS.get(path, path)


def rename_targets(tree: Any, rename: Callable[[str], str]) -> Any:  # noqa: ANN401 (anything that YAML gives)
    """Return plain values with each `_target_` in them renamed."""
    if isinstance(tree, list):
        return [rename_targets(each, rename) for each in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: rename(value) if key == "_target_" and isinstance(value, str) else rename_targets(value, rename)
        for key, value in tree.items()
    }


def with_present_targets(cfg: DictConfig) -> DictConfig:
    """Return a copy of a configuration whose classes can be imported, references unresolved."""
    return OmegaConf.create(rename_targets(OmegaConf.to_container(cfg), present_target))  # type: ignore[no-any-return]
