"""Preparation of the run folder: resume from a checkpoint, or remove the files of an earlier run."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from pneumo.common.disk import remove_stale_below
from pneumo.common.files import write_text
from pneumo.config.fingerprints import recorded_hashes
from pneumo.config.invocation import hydra_settings
from pneumo.errors import ConfigError
from pneumo.reporting.figures.run_figures import CAPTIONS
from pneumo.runs.results import check_overwrite, read_results
from pneumo.runs.split_files import read_splits, write_splits
from pneumo.runs.status import EVENTS, REPORTS, TRACKERS, has_manifest, is_unchanged, write_manifest
from pneumo.training.components import RunComponents, run_settings
from pneumo.training.csv_logger import CSV_FILES
from pneumo.training.displays import PROJECTOR_FILES
from pneumo.training.resumption import check_resumable, check_unfinished, resumable_checkpoint

_SPLITS = "splits.csv"  # removed last: it identifies run folders of earlier versions
_NAMES = (
    *("results.json", "predictions.csv", "validation.csv", TRACKERS, *CSV_FILES, *PROJECTOR_FILES),
    *(f"figures/{name}.{suffix}" for name in CAPTIONS for suffix in ("png", "svg")),
)


def prepare_directory(
    folder: Path, cfg: DictConfig, components: RunComponents, overwrite: bool, resume: bool
) -> str | None:
    """Prepare the run folder: resume or clear it, then write the splits; return the checkpoint to resume from, if any.

    The caller must hold the folder's lock. `overwrite` replaces another run, finished or not. `resume` resumes from the
    last checkpoint in the folder, if it is compatible with this run.

    Raises:
        ConfigError: The folder contains another run or files of other programs, which would be lost.
    """
    settings = run_settings(cfg, components.datamodule)
    ckpt_path: str | None = None
    if cfg.ckpt_path is not None and not overwrite and not resume:
        ckpt_path = cfg.ckpt_path
        check_resumable(Path(cfg.ckpt_path), folder / "checkpoints", settings, components)
    if not overwrite:
        check_overwrite(folder, recorded_hashes(cfg), components.datamodule.data_hash)
        if ckpt_path is None:
            check_unfinished(folder, settings)
        if resume:
            ckpt_path = resumable_checkpoint(folder / "checkpoints" / "last.ckpt", settings, components)
    if components.trainer.is_global_zero:
        remove_stale_below(folder, depth=1)
        remove_stale_below(Path(cfg.paths.cache_dir), depth=2)
        if ckpt_path is None:
            _clear(folder, components.trainer)
        _record_config(folder, cfg)
        datamodule = components.datamodule
        write_splits(folder / _SPLITS, datamodule.splits, datamodule.classes, datamodule.extra_columns)
    return ckpt_path


def _clear(folder: Path, trainer: Trainer) -> None:
    """Remove the files of an earlier run; raise a ConfigError if there are files that pneumo may not have written."""
    checkpoints = {f"checkpoints/{name}.ckpt" for name in ("best", "last", *_checkpoint_names(trainer, folder))}
    names = ((*_NAMES, *sorted(checkpoints)), REPORTS, (_SPLITS,))
    present, reports, splits = ([path for name in group if (path := folder / name).exists()] for group in names)
    events = sorted(folder.glob("events.out.tfevents.*"))
    if has_manifest(folder):
        foreign = [path for path in events if path.suffix != EVENTS]
        foreign += [path for path in reports if not is_unchanged(path)]
    elif _is_earlier_run(folder):
        # Users edit model cards, and earlier versions stored no hash to detect it.
        foreign = [path for path in reports if path.suffix == ".md"]
    else:
        foreign = [*present, *events, *reports, *splits]
    if foreign:
        listed = ", ".join(str(path.relative_to(folder)) for path in foreign[:5])
        raise ConfigError(
            f"{folder} contains files that pneumo did not write or that may have been edited since: "
            f"{listed}{', ...' if foreign[5:] else ''}. They would be mistaken for files of this run. Move them away "
            "or set hydra.run.dir=FOLDER; in a sweep, set another sweep.name."
        )
    for path in (*present, *events, *reports, *splits):
        path.unlink(missing_ok=True)
    write_manifest(folder)


def _checkpoint_names(trainer: Trainer, folder: Path) -> Iterator[str]:
    """Yield the fixed names of the checkpoints that a run writes."""
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, ModelCheckpoint) or not callback.filename or not callback.dirpath:
            continue
        if "{" not in callback.filename and Path(callback.dirpath).resolve() == (folder / "checkpoints").resolve():
            yield callback.filename


def _is_earlier_run(folder: Path) -> bool:
    """Return whether a folder contains a run of a version without manifests."""
    with suppress(ConfigError):
        return bool(read_splits(folder))
    return read_results(folder) is not None


def _record_config(folder: Path, cfg: DictConfig) -> None:
    """Update .hydra/ of a run that replaces or resumes another; Hydra itself would do so before the checks."""
    hydra = hydra_settings()
    if hydra is None or hydra.output_subdir is None or not (folder / hydra.output_subdir / "config.yaml").is_file():
        return
    for name, content in (("config", cfg), ("hydra", HydraConfig.instance().cfg), ("overrides", hydra.overrides.task)):
        path, text = folder / hydra.output_subdir / f"{name}.yaml", OmegaConf.to_yaml(content)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
