"""One job of a sweep, in any process and on any machine."""

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

from pneumo.common.disk import FileError, mistake_behind
from pneumo.common.files import write_text
from pneumo.common.plain_data import PlainDataError, parse_json, read_json
from pneumo.config.fingerprints import recorded_hashes, settings_hash
from pneumo.config.output_folder import run_lock
from pneumo.errors import ConfigError
from pneumo.runs.results import read_results
from pneumo.runs.status import Status, read_status, write_status

COMMAND = "PNEUMO_COMMAND"  # variables that a command sets for its jobs: which command this is,
PLACE = "PNEUMO_JOB"  # which of its jobs, such as 3/12,
SWEPT = "PNEUMO_SWEPT"  # and the job's values of what differs within the sweep, as JSON
_LONGEST = 100  # characters of a name
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Command:
    """One command on a sweep's folder, the last one."""

    name: str  # tells it from others
    overwrite: bool  # whether it runs all jobs anew
    complete: bool  # whether all have finished


def begin_command(sweep: Path, overwrite: bool) -> Command:
    """Take a sweep's folder; a stopped command that runs all jobs anew is resumed under its name."""
    last = read_command(sweep)
    if overwrite and last and last.overwrite and not last.complete:
        return last
    command = Command(f"{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}", overwrite, complete=False)
    write_command(sweep, command)
    return command


def write_command(sweep: Path, command: Command) -> None:
    """Write which command the folder belongs to."""
    write_text(sweep / ".command.json", json.dumps(asdict(command)) + "\n")


def read_command(sweep: Path) -> Command | None:
    """Read which command the folder belongs to; None if no command has been there, or its file is damaged."""
    try:
        found = read_json(sweep / ".command.json")
        command = Command(found["name"], found["overwrite"], found["complete"])
    except (FileNotFoundError, PlainDataError, KeyError, TypeError):
        return None
    # The name becomes an override of the jobs, and part of their status.
    named = isinstance(command.name, str) and command.name.isprintable() and len(command.name) <= _LONGEST
    return command if named and {type(command.overwrite), type(command.complete)} == {bool} else None


def run_job(cfg: DictConfig) -> None:
    """Run a job composed from conf/sweep.yaml, from the start or where it was stopped; record a failure."""
    rich.get_console().quiet = cfg.launcher.parallel  # the command tells of its jobs; their logs tell more
    os.chdir(HydraConfig.get().runtime.cwd)  # Ray's workers have another one; relative paths are the user's
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
    # An engine may still be at a job of a command that was stopped when the next command comes to it, or the reverse.
    try:
        with run_lock(folder, wait=True):
            if (current := read_command(sweep)) and current.name != status.command:
                _log.warning("%s is not begun, since another command has come after its own.", folder.name)
            elif cfg.sweep.fail_fast and (failed := _failed_sibling(sweep, status.command)):
                _log.warning("%s is not begun, since %s failed and sweep.fail_fast=true.", folder.name, failed)
            else:
                _run_alone(cfg, folder, status)
    except FileError as error:  # of the lock or of status.json; other jobs may have a folder that can be written
        _log.error("%s is not begun: %s", folder.name, error)


def _run_alone(cfg: DictConfig, folder: Path, status: Status) -> None:
    overwrite = cfg.sweep.overwrite and not is_done_by(folder, status.command, recorded_hashes(cfg))
    write_status(folder, status)
    running = replace(status, status="running")
    try:
        _log.info("%s %s", os.environ.get(PLACE, ""), folder.name)
        _run(cfg, folder, overwrite, on_start=lambda: write_status(folder, running))
    except Exception as error:  # of any kind: one job's failure must not end the others
        mistake = mistake_behind(error)
        reason = " ".join((str(error) if mistake is None else mistake[1]).split())
        name = type(error).__name__ if mistake is None else mistake[0]
        _log.error("FAILED (%s): %s\nThe traceback is in %s.", name, reason, folder / "train.log", exc_info=error)
        _write_end(folder, replace(status, status="failed", reason=reason or name, error=name))
    except (SystemExit, KeyboardInterrupt):  # a signal, or Ctrl-C
        begun = read_status(folder)  # or what an earlier run has left would be taken for this command's
        _write_end(folder, replace(begun or status, status="stopped" if begun == running else "preparing"))
        raise
    else:
        _write_end(folder, replace(status, status="done"))


def _write_end(folder: Path, status: Status) -> None:
    """Write what became of a job; a full disk must not hide it, nor end other jobs."""
    try:
        write_status(folder, status)
    except OSError as error:
        _log.error("%s/status.json cannot be written (%s): make room on its disk.", folder, error.strerror or error)


def is_done_by(folder: Path, command: str, hashes: frozenset[str]) -> bool:
    """Return whether a run's folder holds a command's work, whole or in part, under one of these `config_hash`es."""
    status, results = read_status(folder), read_results(folder)
    own = status is not None and status.command == command and status.status in ("running", "stopped", "done")
    return own and (results is None or results["config_hash"] in hashes)


def _run(cfg: DictConfig, folder: Path, overwrite: bool, on_start: Callable[[], None]) -> None:
    if not overwrite and (results := read_results(folder)):
        if results["config_hash"] not in recorded_hashes(cfg):
            raise ConfigError(
                f"{folder} holds a finished run of another configuration, which is kept: take another sweep.name, or "
                "sweep.overwrite=true to run the sweep's jobs anew."
            )
        _log.info("It has finished already.")
        return
    from pneumo.training.run import run

    run(cfg, overwrite, resume=True, on_start=on_start, swept=_read_swept())


def _read_swept() -> dict[str, str | float]:
    """Read the job's values of what differs within the sweep."""
    text = os.environ.get(SWEPT, "{}")
    values = None
    with suppress(PlainDataError):
        values = parse_json(text)
    if not isinstance(values, dict) or not all(isinstance(value, str | float) for value in values.values()):
        raise ConfigError(f"{SWEPT}={text[:100]} must be names and values as JSON: unset it, since a sweep sets it.")
    return values


def _failed_sibling(sweep: Path, command: str) -> str | None:
    """Return the name of a job of this command that has failed."""
    for path in sorted(sweep.rglob("status.json")):
        if (status := read_status(path.parent)) and (status.command, status.status) == (command, "failed"):
            return path.parent.name
    return None
