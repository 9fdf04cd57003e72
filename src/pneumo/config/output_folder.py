"""Checks of a command's output folder, and the lock of a run's folder."""

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from pneumo.common.disk import mistake_behind, write_error
from pneumo.common.files import escape_path, require_writable
from pneumo.common.terminal import warn
from pneumo.config.checks import check_config, check_folders, check_sweep, list_overrides, unresolved
from pneumo.config.constraints import PATH, show
from pneumo.errors import ConfigError, PneumoError

LOCK = ".run.lock"
_log = logging.getLogger(__name__)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of network file systems without a lock service
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # in Lightning's order


def set_hydra(config: DictConfig, key: str, value: str | int | None) -> None:
    """Set a value of Hydra's own group, which is read-only."""
    with read_write(config.hydra), open_dict(config.hydra):
        OmegaConf.update(config.hydra, key, value)


def is_first_process() -> bool:
    """Return whether this process is the first, or the only one, of its run, by what launchers set for it."""
    rank = next((os.environ[name] for name in _RANKS if name in os.environ), "0")
    return rank.strip() in ("", "0")


@contextmanager
def run_lock(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a run's folder, which ends with the process; a process that holds it may take it again.

    The folder is made if it is missing. `wait` is for another process; else it is an error.

    Raises:
        ConfigError: Another process trains in the folder.
        FileError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder.resolve())
        acquire_at_once(lock, folder)
    except Timeout:
        if not wait:
            raise ConfigError(
                f"Another process is training in {folder}, and its files would be mixed with those of this run: wait "
                "until it has finished, or write elsewhere with hydra.run.dir=FOLDER and without ckpt_path."
            ) from None
        _log.info("Running %s: another process trains there; waiting for it to finish (%s)", folder.name, folder)
        lock.acquire()
    except OSError as error:
        raise write_error(error, folder) from error
    try:
        yield
    finally:
        lock.release()


def acquire_at_once(lock: BaseFileLock, folder: Path) -> None:
    """Acquire the lock of a folder without waiting; where its file system has no locks, log a warning instead.

    Raises:
        Timeout: Another process holds it.
        OSError: The folder cannot be written.
    """
    try:
        lock.acquire(timeout=0)
    except (NotImplementedError, OSError) as error:  # the former by earlier versions of filelock
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        _warn_unlocked(folder, str(error))


@cache
def _warn_unlocked(folder: Path, reason: str) -> None:
    _log.warning("%s cannot be locked (%s): start nothing else in it before this command ends.", folder, reason)


@cache
def _lock(folder: Path) -> BaseFileLock:
    """Return the lock of a folder: one object in a process, so that it counts how often it is held."""
    return FileLock(folder / LOCK)


class CheckOutputFolder(Callback):
    """Check the configuration, and check and lock its output folder; Hydra itself would print a traceback."""

    def __init__(self) -> None:
        """Create the callback."""
        self.held = ExitStack()
        self.hidden: str | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Check and lock the folder of a single run, and keep Hydra from changing .hydra/ of an earlier one."""
        with _mistakes_end():
            _refuse_search(config)
            _refuse_sweep_settings(config)
            _check_run(config)
            HydraConfig.instance().set_config(config)  # as Hydra does next: the folder's name asks for the choices
            folder = _name_folder(config, "hydra.run.dir")
            _check_writable(folder)
            if is_first_process():
                self.held.enter_context(run_lock(folder))
            name = config.hydra.output_subdir
            if name is not None and os.access(folder / name / "config.yaml", os.F_OK):
                self.hidden = name
                set_hydra(config, "output_subdir", None)
            if name is not None and (folder / name).exists():
                require_writable(folder / name)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Restore the name of .hydra/, which the run writes when it has replaced or resumed the earlier one."""
        if self.hidden is not None:
            set_hydra(config, "output_subdir", self.hidden)
            HydraConfig.instance().set_config(config)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Release the folder."""
        self.held.close()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Check the folder of a sweep."""
        with _mistakes_end():
            _refuse_search(config)
            HydraConfig.instance().set_config(config)
            check_folders(config)
            if "sweep" in config:
                check_sweep(config)
            _check_writable(_name_folder(config, "hydra.sweep.dir"))


@contextmanager
def _mistakes_end() -> Iterator[None]:
    """End with one paragraph; Hydra swallows a callback's other exceptions."""
    try:
        yield
    except (PneumoError, OSError) as error:
        mistake = mistake_behind(error)
        warn(mistake[1] if mistake else str(error))
        raise SystemExit(1) from None


def _refuse_search(config: DictConfig) -> None:
    """Refuse a search in train.py, which would be one run or an error of Hydra's."""
    if "launcher" not in config and OmegaConf.select(config, "sweep.trials", throw_on_missing=False) is not None:
        raise ConfigError(
            f"sweep.trials={config.sweep.trials} makes a search, which train.py cannot run: give the same overrides to "
            "`python sweep.py -m`, or take another experiment, such as experiment=study."
        )


def _refuse_sweep_settings(config: DictConfig) -> None:
    """Refuse what was given to a single run for a sweep; experiments may have such settings."""
    if OmegaConf.select(config, "hydra.job.config_name") == "sweep":  # one of its jobs, run alone
        return
    for override in list_overrides(config.hydra.overrides.task):
        if re.match(r"[+~]*(sweep|launcher)\b(?!/)", override):
            raise ConfigError(
                f"{override} would have no effect, since this is a single run: leave it out, or give it to "
                "`python sweep.py -m`. paths.output_dir or hydra.run.dir moves the results of a single run."
            )


def _check_run(config: DictConfig) -> None:
    """Check a run's configuration; its folder has no name yet, so another one stands for it."""
    checked = config.copy()
    set_hydra(checked, "runtime.output_dir", os.getcwd())
    HydraConfig.instance().set_config(checked)
    check_config(checked)


def _name_folder(config: DictConfig, key: str) -> Path:
    try:
        name = OmegaConf.select(config, key)
    except OmegaConfBaseException as error:
        raise unresolved(error) from error
    if not PATH.holds(name):
        raise ConfigError(f"{key}={show(name)} must be {PATH.describe(key)}.")
    return Path(name)


def _check_writable(folder: Path) -> None:
    if (name := str(folder.absolute())) != escape_path(name):
        raise ConfigError(
            f"The output folder {name} has a name that is not UTF-8, which checkpoints and TensorBoard cannot have: "
            "choose another one with paths.output_dir=FOLDER."
        )
    try:
        require_writable(folder)
    except OSError as error:
        raise ConfigError(
            f"The output folder {folder} cannot be written ({error.strerror}): choose another one with "
            "paths.output_dir=FOLDER, or mend its permissions or its disk."
        ) from None
