"""One command on a sweep's directory: it launches jobs, monitors them and summarises."""

import json
import logging
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock, Timeout
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from pneumo.common.disk import remove_stale_below
from pneumo.common.terminal import print_line
from pneumo.common.text import quote_value
from pneumo.config.fingerprints import recorded_hashes
from pneumo.config.output_folder import acquire_at_once, set_hydra
from pneumo.errors import ConfigError, PneumoError
from pneumo.runs.results import read_results
from pneumo.runs.status import read_status
from pneumo.sweeps.job import COMMAND, PLACE, SWEPT, Command, begin_command, is_done_by, write_command
from pneumo.sweeps.plan import Columns, Job

_log = logging.getLogger(__name__)
_ORDER = ("done", "skipped", "failed", "stopped", "unfinished", "not begun")
_INTERVAL = 1.0  # seconds between looks at what jobs in other processes have written


@dataclass
class Session:
    """What one command does to a sweep."""

    folder: Path  # the sweep's
    command: Command  # identifies this command
    launcher: Launcher  # Hydra's
    parallel: bool  # whether jobs run in other processes, whose output is not shown
    threads: int | None  # how many PyTorch takes in a job; None leaves it to the launcher

    def launch(self, jobs: Sequence[Job], columns: Columns, begun: int = 0, total: int | None = None) -> None:
        """Run jobs; what becomes of them is in their folders.

        `begun` counts the jobs before them, `total` all jobs, if these are not all.
        """
        if not jobs:
            return
        overrides = [self._overrides(job, columns, begun + i + 1, total or len(jobs)) for i, job in enumerate(jobs)]
        try:
            with self._watched(jobs):
                for returned in self.launcher.launch(overrides, begun):
                    _ = returned.return_value  # raises what kept a job from being run at all
        except Exception as error:  # a launcher's own, of whatever kind: the results of other jobs are kept
            _log.error("The launcher gave up: %s: %s", type(error).__name__, error, exc_info=error)

    def record(self, config: DictConfig) -> None:
        """Write the sweep's own configuration, or raise a ConfigError."""
        with _folder_errors(self.folder):
            OmegaConf.save(config, self.folder / "multirun.yaml")

    def own_jobs(self, jobs: Sequence[Job]) -> set[str]:
        """Return the names of the jobs that this command has finished, also before it was stopped."""
        done = (job for job in jobs if is_done_by(job.folder, self.command.name, recorded_hashes(job.config)))
        return {job.name for job in done if read_results(job.folder)}

    def outcome(self, job: Job) -> tuple[str, str]:
        """Return what became of a job, and why."""
        status = read_status(job.folder)
        if status is None or status.command != self.command.name:
            return "not begun", ""
        if status.status not in ("preparing", "running", "stopped"):
            return status.status, status.reason
        if self.own_jobs([job]):
            return "done", ""  # its process was ended after that
        stopped = status.status == "stopped"
        return ("stopped", "by a signal") if stopped else ("unfinished", "its process was ended, or is at work")

    def sum_up(self, jobs: Sequence[Job], finished: set[str], before: Mapping[str, int] = MappingProxyType({})) -> bool:
        """Write the leaderboard, and count what became of the jobs; return whether all have finished.

        `finished` names jobs that had finished before the command began. `before` counts what became of others that
        earlier commands ran.
        """
        outcomes = {job.name: ("skipped", "") if job.name in finished else self.outcome(job) for job in jobs}
        counts = Counter(what for what, _ in outcomes.values()) + Counter(before)
        complete = not counts.keys() - {"done", "skipped"}
        if counts.keys() - {"not begun"}:
            complete &= self._write("The leaderboard", self._write_leaderboard)
        for name, (what, reason) in outcomes.items():
            if reason:
                print_line(f"{what} {name}: {reason}", style="red")
        command = replace(self.command, complete=complete)
        complete &= self._write("What the sweep has come to", lambda: write_command(self.folder, command))
        if not complete:
            _log.warning("The same command goes on: it keeps what is done and runs the rest.")
        told = ", ".join(f"{counts[what]} {what}" for what in _ORDER if counts[what] or what in _ORDER[:3])
        print_line(f"{counts.total()} jobs: {told}")
        return complete

    def _write_leaderboard(self) -> None:
        from pneumo.reporting.leaderboard import write_leaderboard

        write_leaderboard([self.folder], self.folder)

    def _write(self, what: str, write: Callable[[], None]) -> bool:
        try:
            write()
        except (PneumoError, OSError) as error:  # what became of the jobs is told all the same
            _log.error("%s could not be written: %s", what, error)
            return False
        return True

    def _overrides(self, job: Job, columns: Columns, number: int, total: int) -> list[str]:
        variables = {COMMAND: self.command.name, PLACE: f"{number}/{total}", SWEPT: json.dumps(columns.row(job))}
        if self.threads is not None:
            variables["OMP_NUM_THREADS"] = str(self.threads)
        return [
            *job.overrides,
            f"hydra.sweep.dir={quote_value(str(self.folder))}",
            f"hydra.sweep.subdir={quote_value(job.name)}",
            *(f"+hydra.job.env_set.{name}={quote_value(value)}" for name, value in variables.items()),
        ]

    @contextmanager
    def _watched(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Log when jobs in other processes begin and end."""
        if not self.parallel:
            yield
            return
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(jobs, ended), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def _watch(self, jobs: Sequence[Job], ended: threading.Event) -> None:
        told: dict[str, str] = {}
        last = False
        while not last:
            last = ended.wait(_INTERVAL)
            for job in jobs:
                what, reason = self.outcome(job)
                if what == "unfinished" and not last:
                    what, reason = "begun", ""
                if what not in ("not begun", told.get(job.name)):
                    told[job.name] = what
                    _log.info("%s %s%s", job.name, what, reason and f": {reason}")


@contextmanager
def open_session(config: DictConfig, launcher: Launcher) -> Iterator[Session]:
    """Hold a sweep's folder, or raise a ConfigError if another process does; end at SIGTERM as at Ctrl-C."""
    folder = Path(config.hydra.sweep.dir)
    lock = FileLock(folder / ".lock")
    try:
        with _folder_errors(folder):
            acquire_at_once(lock, folder)
    except Timeout:
        raise ConfigError(
            f"Another process is running a sweep in {folder}: wait until it has finished, or take another sweep.name."
        ) from None
    remove_stale_below(folder, depth=2)
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with _folder_errors(folder):
            command = begin_command(folder, config.sweep.overwrite)
        yield Session(folder, command, launcher, config.launcher.parallel, config.launcher.threads)
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        signal.signal(signal.SIGTERM, before)
        lock.release()


def resolve_sweep_dir(config: DictConfig) -> Path:
    """Make the sweep's folder, set its absolute path, and return it; raise a ConfigError if it cannot be written."""
    folder = Path(config.hydra.sweep.dir).absolute()
    with _folder_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    set_hydra(config, "sweep.dir", str(folder))
    return folder


@contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    """Raise a ConfigError instead of what keeps a sweep's folder from being used."""
    try:
        yield
    except Timeout:  # of a lock, and an OSError too
        raise
    except OSError as error:
        raise ConfigError(
            f"The sweep's folder {folder} cannot be used ({error.strerror or error}): choose another one with "
            "paths.output_dir=FOLDER, or mend its permissions or its disk. What has finished is kept."
        ) from error
