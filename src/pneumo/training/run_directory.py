"""The directory of a run: resumed, or cleared of files that an earlier run left."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from pneumo.common.disk import disk_error, remove_stale_below
from pneumo.common.files import write_text
from pneumo.config.console import LostOutputError, describe_resume, describe_stop
from pneumo.config.fingerprints import recorded_hashes
from pneumo.config.output_folder import LOCK
from pneumo.errors import ConfigError, PneumoError
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.reporting.figures.run_figures import CAPTIONS
from pneumo.runs.results import check_overwrite, read_results
from pneumo.runs.split_files import read_splits, write_splits
from pneumo.runs.status import EVENTS, MANIFEST, REPORTS, has_manifest, is_unchanged, write_manifest
from pneumo.training.components import RunComponents, run_settings
from pneumo.training.displays import CONFIG, FOLDER, NAMES
from pneumo.training.resumption import check_resumable, describe_changes, resumable_checkpoint

_SPLITS = "splits.csv"  # removed last, since it proves that the folder is a run's of an earlier version
_log = logging.getLogger(__name__)

_NAMES = (
    *("results.json", "predictions.csv", "validation.csv", CONFIG),
    *(f"{FOLDER}/{name}" for name in NAMES),
    *(f"figures/{name}.{suffix}" for name in CAPTIONS for suffix in ("png", "svg")),
)


def prepare_directory(
    folder: Path, cfg: DictConfig, components: RunComponents, overwrite: bool, resume: bool
) -> str | None:
    """Prepare the run directory: resume or clear it, then write the splits.

    Args:
        folder: The run's, whose lock this process holds.
        cfg: The run's configuration.
        components: The run's.
        overwrite: Replace another run, finished or not.
        resume: Resume from the last checkpoint in the folder, if there is one that this run can resume from.

    Returns:
        The checkpoint to resume from; None for a run from scratch.

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


@contextmanager
def explained_stops(last: Path, sweep: bool) -> Iterator[None]:
    """Log what Lightning does not: why it cannot run, and how to continue after a signal.

    Args:
        last: The run's last checkpoint, which may be missing.
        sweep: Whether the run is a job of a sweep, which finds its own checkpoint.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning cannot run with these settings of `trainer`: {error}") from error
    except LostOutputError:
        raise
    except (SystemExit, KeyboardInterrupt) as stop:  # Lightning's silent answer to signals; Ctrl-C outside of it
        _log.warning("%s", describe_stop(last, sweep))
        number = signal.SIGTERM if isinstance(stop, SIGTERMException) else signal.SIGINT
        code = getattr(stop, "code", None)
        raise SystemExit(code if isinstance(code, int) and code > 128 else 128 + number) from None


@contextmanager
def explained_failures(last: Path, sweep: bool) -> Iterator[None]:
    """Raise a ConfigError, with the way to continue, if a disk fails or the run's folder is removed.

    Args:
        last: The run's last checkpoint, which may be missing.
        sweep: Whether the run is a job of a sweep, which finds its own checkpoint.
    """
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


def _check_unfinished(folder: Path, settings: dict[str, object]) -> None:
    """Raise a ConfigError if an unfinished run in the folder has other settings, whose checkpoints would be lost."""
    if (folder / "results.json").exists():
        return
    for name in ("last.ckpt", "best.ckpt"):
        try:
            stored = read_checkpoint(folder / "checkpoints" / name).get("config", {})
        except ConfigError:  # there is none, or it is damaged, so that no run could resume from it
            continue
        if changes := describe_changes(stored, settings):
            raise ConfigError(
                f"{folder} holds an unfinished run with other settings, whose checkpoints would be lost: {changes}. "
                "Write elsewhere with hydra.run.dir=FOLDER, or remove the folder; in a sweep, take another sweep.name, "
                "or sweep.overwrite=true to replace it."
            )


def _clear(folder: Path, trainer: Trainer) -> None:
    """Remove what an earlier run left in this folder, since it would be taken for this run's.

    Raises:
        ConfigError: Files that pneumo did not write would be taken for this run's.
    """
    checkpoints = {f"checkpoints/{name}.ckpt" for name in ("best", "last", *_checkpoint_names(trainer, folder))}
    present = [path for name in (*_NAMES, *sorted(checkpoints)) if (path := folder / name).exists()]
    events = sorted(folder.glob("events.out.tfevents.*"))
    reports = [path for name in REPORTS if (path := folder / name).exists()]
    splits = [folder / _SPLITS] if (folder / _SPLITS).exists() else []
    if has_manifest(folder):
        foreign = [path for path in events if path.suffix != EVENTS]
        foreign += [path for path in reports if not is_unchanged(path)]
    elif _is_earlier_run(folder):
        foreign = [path for path in reports if path.suffix == ".md"]  # users complete model cards; no hash shows it
    else:
        foreign = [*present, *events, *reports, *splits]
    if foreign:
        names = ", ".join(str(path.relative_to(folder)) for path in foreign[:5])
        raise ConfigError(
            f"{folder} holds files that pneumo did not write, or that may have been edited since, and that would be "
            f"taken for this run's: {names}{', ...' if foreign[5:] else ''}. Move them away, or write elsewhere with "
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
    try:
        read_splits(folder)
    except ConfigError:
        return read_results(folder) is not None
    return True


def _record_config(folder: Path, cfg: DictConfig) -> None:
    """Write .hydra/ of a run that replaces or resumes another: Hydra does so before it is known to be allowed."""
    if not HydraConfig.initialized():
        return
    job = HydraConfig.get()
    if job.output_subdir is None or not (folder / job.output_subdir / "config.yaml").is_file():
        return
    files = {"config": cfg, "hydra": HydraConfig.instance().cfg, "overrides": job.overrides.task}
    for name, content in files.items():
        path, text = folder / job.output_subdir / f"{name}.yaml", OmegaConf.to_yaml(content)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
