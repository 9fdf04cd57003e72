"""A run's directory: resumed from a checkpoint, or cleared of what an earlier run left; other files stay."""

import json
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from pneumo.common.disk import disk_error, remove_stale_below
from pneumo.common.files import write_text
from pneumo.common.streams import LostOutputError
from pneumo.config.console import describe_resume
from pneumo.config.fingerprints import recorded_hashes, recorded_settings
from pneumo.config.output_folder import LOCK
from pneumo.errors import ConfigError, PneumoError
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.reporting.figures.run_figures import CAPTIONS
from pneumo.runs.results import check_overwrite, read_results
from pneumo.runs.split_files import read_splits, write_splits
from pneumo.runs.status import EVENTS, MANIFEST, REPORTS, has_manifest, is_unchanged, write_manifest
from pneumo.training.components import RunComponents, run_settings
from pneumo.training.loggers import PROJECTOR_FILES
from pneumo.training.state_forms import FormError, show
from pneumo.training.stored_state import require_training_state

_SPLITS = "splits.csv"  # removed last, since it proves that the folder is a run's of an earlier version
_log = logging.getLogger(__name__)
_NAMES = (
    *("results.json", "predictions.csv", "validation.csv", *PROJECTOR_FILES),
    *(f"figures/{name}.{suffix}" for name in CAPTIONS for suffix in ("png", "svg")),
)


def prepare_directory(
    folder: Path, cfg: DictConfig, components: RunComponents, overwrite: bool, resume: bool
) -> str | None:
    """Prepare the run directory: resume or clear it, write the splits; return the checkpoint to resume from, if any.

    The process holds the folder's lock. `overwrite` replaces another run, finished or not. `resume` continues from the
    last checkpoint in the folder, if there is one that this run can continue from.

    Raises:
        ConfigError: The folder holds another run, or files that pneumo did not write, which would be lost.
    """
    settings = run_settings(cfg, components.datamodule)
    ckpt_path: str | None = None
    if cfg.ckpt_path is not None and not overwrite and not resume:
        ckpt_path = cfg.ckpt_path
        check_resumable(Path(cfg.ckpt_path), folder / "checkpoints", settings, components)
    if not overwrite:
        check_overwrite(folder, recorded_hashes(cfg), components.datamodule.data_hash)
        if ckpt_path is None:
            _check_unfinished(folder, settings)
        if resume:
            ckpt_path = resumable_checkpoint(folder / "checkpoints" / "last.ckpt", settings, components)
    if components.trainer.is_global_zero:
        remove_stale_below(folder, depth=1)
        remove_stale_below(Path(cfg.paths.cache_dir), depth=2)
        if ckpt_path is None:
            _clear(folder, components.trainer)
        _record_config(folder, cfg)
        write_splits(folder / _SPLITS, components.datamodule.splits, components.datamodule.classes)
    return ckpt_path


def resumable_checkpoint(last: Path, settings: dict[str, Any], components: RunComponents) -> str | None:
    """Return the last checkpoint if a run can go on from it; log why not if it is there without effect."""
    if not last.is_file():
        return None
    try:
        check_resumable(last, last.parent, settings, components)
    except ConfigError as error:
        _log.warning("This run begins anew: %s", error)
        return None
    _log.info("going on from %s", last)
    return str(last)


def check_resumable(path: Path, folder: Path, config: dict[str, Any], components: RunComponents) -> None:
    """Raise a ConfigError unless a run, whose checkpoints a folder holds, can go on from one; nothing is written."""
    callback = components.trainer.checkpoint_callback  # whose checkpoint is tested; `callbacks.best.filename` names it
    name = isinstance(callback, ModelCheckpoint) and callback.filename
    read, best = read_checkpoint(path), folder / f"{name or 'best'}.ckpt"
    check_settings(read, path, best, config)
    try:
        require_training_state(read, read_checkpoint(best), components)
    except FormError as error:
        raise ConfigError(
            f"ckpt_path={path} cannot be resumed: {error}. It is damaged or was changed. Start again without "
            "ckpt_path, or put an older copy of the whole folder in its place."
        ) from error


def check_settings(read: dict[str, Any], path: Path, best: Path, config: dict[str, Any]) -> None:
    """Raise a ConfigError unless a checkpoint lies next to the best one and was written under the run's settings."""
    if path.resolve().parent != best.parent.resolve() or not best.is_file():
        raise ConfigError(
            f"ckpt_path={path} does not lie next to {best}, the best checkpoint so far. A run goes on in "
            "its own folder: give ckpt_path=RUN/checkpoints/last.ckpt with the whole folder RUN in its place, and no "
            "hydra.run.dir."
        )
    if changes := _describe_changes(read.get("config", {}), config):
        raise ConfigError(
            f"ckpt_path={path} was written by a run with other settings: {changes}. A run goes on as it began: set "
            "these as they were (data_hash follows from the radiographs), or start anew without ckpt_path; to train "
            "these weights otherwise, give the checkpoint as model.weights."
        )


def _check_unfinished(folder: Path, settings: dict[str, object]) -> None:
    """Raise a ConfigError if an unfinished run in the folder has other settings, whose checkpoints would be lost."""
    if (folder / "results.json").exists():
        return
    for name in ("last.ckpt", "best.ckpt"):
        try:
            stored = read_checkpoint(folder / "checkpoints" / name).get("config", {})
        except ConfigError:  # there is none, or it is damaged, so that no run could resume from it
            continue
        if changes := _describe_changes(stored, settings):
            raise ConfigError(
                f"{folder} holds an unfinished run with other settings, whose checkpoints would be lost: {changes}. "
                "Write elsewhere with hydra.run.dir=FOLDER, or remove the folder; in a sweep, take another sweep.name, "
                "or sweep.overwrite=true to replace it."
            )


def _describe_changes(stored: dict[str, Any], config: dict[str, Any]) -> str:
    """Describe how settings that a checkpoint was written under differ from the present ones; empty if they do not."""
    differences = (
        sorted(key for key in stored.keys() | form.keys() if not _is_same(stored.get(key), form.get(key)))
        for form in recorded_settings(config)
    )
    other = min(differences, key=len)
    shown = [f"{key}={show(stored.get(key))} (now {config.get(key)})" for key in other[:5]]
    return ", ".join([*shown, "..."] if other[5:] else shown)


def _is_same(stored: object, value: object) -> bool:
    """Return whether a stored setting, which may be anything, is the present one."""
    if isinstance(stored, str | int | float | None) and not isinstance(value, list | dict):
        return stored == value
    try:
        return json.dumps(stored) == json.dumps(value)
    except (TypeError, ValueError, RecursionError):  # tensors, or lists that hold themselves
        return False


def _clear(folder: Path, trainer: Trainer) -> None:
    """Remove what an earlier run left; raise a ConfigError if files of others would be taken for this run's."""
    checkpoints = {f"checkpoints/{name}.ckpt" for name in ("best", "last", *_checkpoint_names(trainer, folder))}
    names = ((*_NAMES, *sorted(checkpoints)), REPORTS, (_SPLITS,))
    present, reports, splits = ([path for name in of if (path := folder / name).exists()] for of in names)
    events = sorted(folder.glob("events.out.tfevents.*"))
    if has_manifest(folder):
        foreign = [path for path in events if path.suffix != EVENTS]
        foreign += [path for path in reports if not is_unchanged(path)]
    elif _is_earlier_run(folder):
        foreign = [path for path in reports if path.suffix == ".md"]  # users complete model cards; no hash shows it
    else:
        foreign = [*present, *events, *reports, *splits]
    if foreign:
        listed = ", ".join(str(path.relative_to(folder)) for path in foreign[:5])
        raise ConfigError(
            f"{folder} holds files that pneumo did not write, or that may have been edited since, and that would be "
            f"taken for this run's: {listed}{', ...' if foreign[5:] else ''}. Move them away, or write elsewhere with "
            "hydra.run.dir=FOLDER; in a sweep, take another sweep.name."
        )
    for path in (*present, *events, *reports, *splits):
        path.unlink(missing_ok=True)
    write_manifest(folder)


def _checkpoint_names(trainer: Trainer, folder: Path) -> Iterator[str]:
    """Return the names of the checkpoints that a run writes, if they are fixed."""
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, ModelCheckpoint) or not callback.filename or not callback.dirpath:
            continue
        if "{" not in callback.filename and Path(callback.dirpath).resolve() == (folder / "checkpoints").resolve():
            yield callback.filename


def _is_earlier_run(folder: Path) -> bool:
    """Return whether a version of pneumo without manifests has run in a folder."""
    with suppress(ConfigError):
        return bool(read_splits(folder))
    return read_results(folder) is not None


def _record_config(folder: Path, cfg: DictConfig) -> None:
    """Write .hydra/ of a run that replaces or resumes another: Hydra does so before it is known to be allowed."""
    if not HydraConfig.initialized():
        return
    job = HydraConfig.get()
    if job.output_subdir is None or not (folder / job.output_subdir / "config.yaml").is_file():
        return
    for name, content in (("config", cfg), ("hydra", HydraConfig.instance().cfg), ("overrides", job.overrides.task)):
        path, text = folder / job.output_subdir / f"{name}.yaml", OmegaConf.to_yaml(content)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


@contextmanager
def explained_stops(last: Path, sweep: bool) -> Iterator[None]:
    """Log what Lightning does not: why it cannot run, and how to continue after a signal."""
    try:
        yield
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning cannot run with these settings of `trainer`: {error}") from error
    except LostOutputError:
        raise
    except (SystemExit, KeyboardInterrupt) as stop:  # Lightning's silent answer to signals; Ctrl-C outside of it
        _log.warning("Stopped by a signal. %s", describe_resume(last, sweep))
        number = signal.SIGTERM if isinstance(stop, SIGTERMException) else signal.SIGINT
        code = stop.code if isinstance(stop, SystemExit) else None
        raise SystemExit(code if isinstance(code, int) and code > 128 else 128 + number) from None


@contextmanager
def explained_failures(last: Path, sweep: bool) -> Iterator[None]:
    """Raise a ConfigError, with the way to continue, if a disk fails or the run's folder is removed."""
    folder = last.parent.parent
    existed = _holds_run(folder)  # not so on the other machines of a run without a shared disk
    try:
        yield
    except (OSError, PneumoError) as error:
        if existed and not _holds_run(folder):  # the folder itself may be there again, since writers make it
            raise ConfigError(
                f"{folder}, the run's folder, was removed or renamed while the run was writing to it: start again with "
                "the same command."
            ) from error
        failure = disk_error(error) if isinstance(error, OSError) else None
        if failure is None:
            raise
        raise ConfigError(f"{failure} {describe_resume(last, sweep)}") from error


def _holds_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (LOCK, MANIFEST, _SPLITS))
