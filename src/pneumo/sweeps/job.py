"""A single job of a sweep, in any process and on any machine."""

import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import rich
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pneumo.common.disk import FileError, find_user_error
from pneumo.common.files import write_text
from pneumo.common.plain_data import PlainDataError, parse_json, read_json
from pneumo.config.fingerprints import recorded_hashes, settings_hash
from pneumo.config.output_folder import run_lock
from pneumo.errors import ConfigError
from pneumo.runs.results import read_results
from pneumo.runs.status import Status, read_status, write_status

# Environment variables that a sweep command sets for its jobs
COMMAND = "PNEUMO_COMMAND"  # name of the command
JOB_NUMBER = "PNEUMO_JOB"  # job number and number of jobs, such as 3/12
SWEPT = "PNEUMO_SWEPT"  # the job's values of the settings that differ within the sweep, as JSON
_MAX_NAME = 100  # characters
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Command:
    """The latest sweep.py command in a sweep's folder."""

    name: str  # unique
    overwrite: bool  # whether it reruns finished jobs
    complete: bool  # whether all jobs have finished


def start_command(sweep: Path, overwrite: bool) -> Command:
    """Start a command in a sweep's folder; an interrupted overwriting command is resumed under its name."""
    last = read_command(sweep)
    if overwrite and last and last.overwrite and not last.complete:
        return last
    command = Command(f"{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}", overwrite, complete=False)
    write_command(sweep, command)
    return command


def write_command(sweep: Path, command: Command) -> None:
    """Store the latest command in the sweep's folder."""
    write_text(sweep / ".command.json", json.dumps(asdict(command)) + "\n")


def read_command(sweep: Path) -> Command | None:
    """Read the latest command of a sweep's folder; return None if there is none or its file is damaged."""
    try:
        stored = read_json(sweep / ".command.json")
        command = Command(stored["name"], stored["overwrite"], stored["complete"])
    except (FileNotFoundError, PlainDataError, KeyError, TypeError):
        return None
    # The name becomes an override of the jobs and part of their status.
    valid = isinstance(command.name, str) and command.name.isprintable() and len(command.name) <= _MAX_NAME
    return command if valid and {type(command.overwrite), type(command.complete)} == {bool} else None


def run_job(cfg: DictConfig) -> None:
    """Run or resume a job composed from conf/sweep.yaml, and store its status."""
    rich.get_console().quiet = cfg.launcher.parallel  # the sweep command prints progress; details are in train.log
    os.chdir(
        HydraConfig.get().runtime.cwd
    )  # Ray's workers start in another folder than the user, who may set relative paths
    folder, sweep = Path(cfg.paths.run_dir), Path(HydraConfig.get().sweep.dir)
    status = Status(
        command=os.environ.get(COMMAND, ""),
        status="preparing",
        reason="",
        error="",
        **{name: cfg.choices[name] for name in ("model", "optimizer", "experiment")},
        seed=cfg.seed,
        settings_hash=settings_hash(cfg),
    )
    # A launcher may still run this job for a stopped command, or start it late, after a newer command has started.
    try:
        with run_lock(folder, wait=True):
            if (current := read_command(sweep)) and current.name != status.command:
                _log.warning("%s is not started, since a newer command runs this sweep.", folder.name)
            elif cfg.sweep.fail_fast and (failed := _failed_sibling(sweep, status.command)):
                _log.warning("%s is not started, since %s failed and sweep.fail_fast=true.", folder.name, failed)
            else:
                _run_locked(cfg, folder, status)
    except FileError as error:  # of the lock or of status.json; the folders of other jobs may be writable
        _log.error("%s is not started: %s", folder.name, error)


def _run_locked(cfg: DictConfig, folder: Path, status: Status) -> None:
    overwrite = cfg.sweep.overwrite and not is_done_by(folder, status.command, recorded_hashes(cfg))
    write_status(folder, status)
    running = replace(status, status="running")
    try:
        _log.info("%s %s", os.environ.get(JOB_NUMBER, ""), folder.name)
        _run(cfg, folder, overwrite, on_start=lambda: write_status(folder, running))
    except Exception as error:  # any failure: other jobs must continue
        user_error = find_user_error(error)
        reason = " ".join((str(error) if user_error is None else user_error[1]).split())
        name = type(error).__name__ if user_error is None else user_error[0]
        _log.error("FAILED (%s): %s\nThe traceback is in %s.", name, reason, folder / "train.log", exc_info=error)
        _write_end(folder, replace(status, status="failed", reason=reason or name, error=name))
    except (SystemExit, KeyboardInterrupt):  # a signal, or Ctrl-C
        # "stopped" only if the run started: otherwise the folder may still contain an earlier run
        current = read_status(folder)
        _write_end(folder, replace(current or status, status="stopped" if current == running else "preparing"))
        raise
    else:
        _write_end(folder, replace(status, status="done"))


def _write_end(folder: Path, status: Status) -> None:
    """Write a job's final status; a disk error is only logged, so that other jobs continue."""
    try:
        write_status(folder, status)
    except OSError as error:
        _log.error("%s/status.json cannot be written (%s): free some space.", folder, error.strerror or error)


def is_done_by(folder: Path, command: str, hashes: frozenset[str]) -> bool:
    """Return whether a command started or finished the run in a folder, with one of these values of `config_hash`."""
    status, results = read_status(folder), read_results(folder)
    own = status is not None and status.command == command and status.status in ("running", "stopped", "done")
    return own and (results is None or results["config_hash"] in hashes)


def _run(cfg: DictConfig, folder: Path, overwrite: bool, on_start: Callable[[], None]) -> None:
    if not overwrite and (results := read_results(folder)):
        if results["config_hash"] not in recorded_hashes(cfg):
            raise ConfigError(
                f"{folder} contains a finished run of another configuration. Use another sweep.name, or set "
                "sweep.overwrite=true to rerun the sweep's jobs."
            )
        _log.info("This job has already finished.")
        return
    from pneumo.training.run import run

    run(cfg, overwrite, resume=True, on_start=on_start, swept=_read_swept())


def _read_swept() -> dict[str, str | float]:
    """Read the job's values of the settings that differ within the sweep."""
    text = os.environ.get(SWEPT, "{}")
    values = None
    with suppress(PlainDataError):
        values = parse_json(text)
    if not isinstance(values, dict) or not all(isinstance(value, str | float) for value in values.values()):
        raise ConfigError(f"{SWEPT}={text[:100]} must be a JSON object. Unset it: sweep.py sets it for its jobs.")
    return values


def _failed_sibling(sweep: Path, command: str) -> str | None:
    """Return the name of a failed job of the same command; None if there is none."""
    for path in sorted(sweep.rglob("status.json")):
        if (status := read_status(path.parent)) and (status.command, status.status) == (command, "failed"):
            return path.parent.name
    return None
