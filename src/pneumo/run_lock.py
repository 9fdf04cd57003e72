"""The lock of a run's folder: one process at a time trains in it."""

import errno
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from pneumo.errors import ConfigError
from pneumo.failures import write_error

LOCK = ".run.lock"

_log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of network file systems without a lock service
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # in Lightning's order


@contextmanager
def run_lock(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a run's folder, which ends with the process; a process that holds it may take it again.

    Args:
        folder: The run's, made if it is missing.
        wait: Wait for another process rather than refuse to run.

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


def is_first_process(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a process is the first, or the only one, of its run, by what launchers set for it."""
    rank = next((environment[name] for name in _RANKS if name in environment), "0")
    return rank.strip() in ("", "0")


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
