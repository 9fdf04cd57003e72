"""Checks of a command's output folder, and the lock of a run folder."""

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

from pneumo.common.disk import find_user_error, write_error
from pneumo.common.files import escape_path, require_writable
from pneumo.common.terminal import warn
from pneumo.config.checks import check_config, check_folders, check_sweep, overrides_as_text, resolution_error
from pneumo.config.constraints import PATH, show
from pneumo.errors import ConfigError, PneumoError

LOCK = ".run.lock"
_log = logging.getLogger(__name__)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # network file systems without a lock service
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # in Lightning's order of precedence


def set_hydra(config: DictConfig, key: str, value: str | int | None) -> None:
    """Set a value of the group `hydra`, which is read-only."""
    with read_write(config.hydra), open_dict(config.hydra):
        OmegaConf.update(config.hydra, key, value)


def is_first_process() -> bool:
    """Return whether this process has rank 0 in its run, according to the launcher's environment variables."""
    rank = next((os.environ[name] for name in _RANKS if name in os.environ), "0")
    return rank.strip() in ("", "0")


@contextmanager
def run_lock(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a run folder; create the folder if it is missing.

    The lock is reentrant and is released when the process ends.

    Args:
        folder: The run folder.
        wait: Wait for another process that holds the lock instead of raising a ConfigError.

    Raises:
        ConfigError: Another process trains in the folder.
        FileError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder.resolve())
        acquire_immediately(lock, folder)
    except Timeout:
        if not wait:
            raise ConfigError(
                f"Another process is training in {folder}, and the files of both runs would be mixed. Wait until it "
                "has finished, or use another folder with hydra.run.dir=FOLDER and without ckpt_path."
            ) from None
        _log.info("Running %s: waiting for another process that trains in %s", folder.name, folder)
        lock.acquire()
    except OSError as error:
        raise write_error(error, folder) from error
    try:
        yield
    finally:
        lock.release()


def acquire_immediately(lock: BaseFileLock, folder: Path) -> None:
    """Acquire the lock of a folder without waiting; if its file system does not support locks, log a warning.

    Raises:
        Timeout: Another process holds it.
        OSError: The folder cannot be written.
    """
    try:
        lock.acquire(timeout=0)
    except (NotImplementedError, OSError) as error:  # older versions of filelock raise NotImplementedError
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        _warn_unlocked(folder, str(error))


@cache
def _warn_unlocked(folder: Path, reason: str) -> None:
    _log.warning("%s cannot be locked (%s): do not start another run in it before this command ends.", folder, reason)


@cache
def _lock(folder: Path) -> BaseFileLock:
    """Return the lock of a folder, one object per process, which makes it reentrant."""
    return FileLock(folder / LOCK)


class CheckOutputFolder(Callback):
    """Check the configuration, then check and lock the output folder; print user errors without a traceback."""

    def __init__(self) -> None:
        """Create the callback."""
        self.locks = ExitStack()
        self.hidden_subdir: str | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Check and lock the folder of a single run; prevent Hydra from overwriting .hydra/ of an earlier run."""
        with _exit_on_user_error():
            _reject_search(config)
            _reject_sweep_settings(config)
            _check_run(config)
            HydraConfig.instance().set_config(config)  # earlier than Hydra, since the folder's name uses `choices`
            folder = _name_folder(config, "hydra.run.dir")
            _check_writable(folder)
            if is_first_process():
                self.locks.enter_context(run_lock(folder))
            name = config.hydra.output_subdir
            if name is not None and os.access(folder / name / "config.yaml", os.F_OK):
                self.hidden_subdir = name
                set_hydra(config, "output_subdir", None)
            if name is not None and (folder / name).exists():
                require_writable(folder / name)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Restore the name of .hydra/; the run writes it after it has replaced or resumed the earlier run."""
        if self.hidden_subdir is not None:
            set_hydra(config, "output_subdir", self.hidden_subdir)
            HydraConfig.instance().set_config(config)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Release the lock."""
        self.locks.close()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Check the folder of a sweep."""
        with _exit_on_user_error():
            _reject_search(config)
            HydraConfig.instance().set_config(config)
            check_folders(config)
            if "sweep" in config:
                check_sweep(config)
            _check_writable(_name_folder(config, "hydra.sweep.dir"))


@contextmanager
def _exit_on_user_error() -> Iterator[None]:
    """Print a user error and exit with status 1; Hydra would only log an exception of a callback."""
    try:
        yield
    except (PneumoError, OSError) as error:
        user_error = find_user_error(error)
        warn(user_error[1] if user_error else str(error))
        raise SystemExit(1) from None


def _reject_search(config: DictConfig) -> None:
    """Raise a ConfigError for a search in train.py, which would start one run or fail in Hydra."""
    if "launcher" not in config and OmegaConf.select(config, "sweep.trials", throw_on_missing=False) is not None:
        raise ConfigError(
            f"sweep.trials={config.sweep.trials} starts a search, which train.py cannot run. Use the same overrides "
            "with `python sweep.py -m`, or another experiment, such as experiment=study."
        )


def _reject_sweep_settings(config: DictConfig) -> None:
    """Raise a ConfigError if the command line of a single run sets options of sweeps; experiments may set them."""
    if OmegaConf.select(config, "hydra.job.config_name") == "sweep":  # a single job of a sweep
        return
    for override in overrides_as_text(config.hydra.overrides.task):
        if re.match(r"[+~]*(sweep|launcher)\b(?!/)", override):
            raise ConfigError(
                f"{override} would have no effect, since this is a single run. Remove it, or use `python sweep.py -m`. "
                "To move the results of a single run, set paths.output_dir or hydra.run.dir."
            )


def _check_run(config: DictConfig) -> None:
    """Validate a run's configuration; its folder is not known yet, so the working folder replaces it."""
    checked = config.copy()
    set_hydra(checked, "runtime.output_dir", os.getcwd())
    HydraConfig.instance().set_config(checked)
    check_config(checked)


def _name_folder(config: DictConfig, key: str) -> Path:
    try:
        name = OmegaConf.select(config, key)
    except OmegaConfBaseException as error:
        raise resolution_error(error) from error
    if not PATH.holds(name):
        raise ConfigError(f"{key}={show(name)} must be {PATH.describe(key)}.")
    return Path(name)


def _check_writable(folder: Path) -> None:
    if (name := str(folder.absolute())) != escape_path(name):
        raise ConfigError(
            f"The output folder {name} is not valid UTF-8, which checkpoints and TensorBoard require. Use another one "
            "with paths.output_dir=FOLDER."
        )
    try:
        require_writable(folder)
    except OSError as error:
        raise ConfigError(
            f"The output folder {folder} cannot be written ({error.strerror}). Use another one with "
            "paths.output_dir=FOLDER, or fix its permissions or its disk."
        ) from None
