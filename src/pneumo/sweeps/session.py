"""A sweep.py command on a sweep's folder: launching, monitoring and summarizing jobs."""

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
from pneumo.config.output_folder import acquire_immediately, set_hydra
from pneumo.errors import ConfigError, PneumoError
from pneumo.runs.results import read_results
from pneumo.runs.status import read_status
from pneumo.sweeps.job import COMMAND, JOB_NUMBER, SWEPT, Command, is_done_by, start_command, write_command
from pneumo.sweeps.plan import Columns, Job

_log = logging.getLogger(__name__)
_OUTCOMES = ("done", "skipped", "failed", "stopped", "unfinished", "not started")
_POLL_INTERVAL = 1.0  # seconds between reads of the status files of jobs in other processes


@dataclass
class Session:
    """A running sweep.py command."""

    folder: Path  # the sweep's folder
    command: Command  # this command
    launcher: Launcher  # Hydra's launcher
    parallel: bool  # whether jobs run in other processes, without output on this terminal
    threads: int | None  # PyTorch threads per job; None: the launcher's default

    def launch(self, jobs: Sequence[Job], columns: Columns, first: int = 0, total: int | None = None) -> None:
        """Run jobs, which write their results and status to their folders.

        Args:
            jobs: The jobs to run.
            columns: The sweep's columns.
            first: Index of the first job.
            total: Number of all jobs of the sweep, by default that of `jobs`.
        """
        if not jobs:
            return
        overrides = [self._overrides(job, columns, first + i + 1, total or len(jobs)) for i, job in enumerate(jobs)]
        try:
            with self._watched(jobs):
                for returned in self.launcher.launch(overrides, first):
                    _ = returned.return_value  # raises the error of a job that could not be started
        except Exception as error:  # any error of a launcher: results of other jobs are kept
            _log.error("The launcher failed: %s: %s", type(error).__name__, error, exc_info=error)

    def record(self, config: DictConfig) -> None:
        """Write the sweep's configuration to its folder; raise a ConfigError if that fails."""
        with _folder_errors(self.folder):
            OmegaConf.save(config, self.folder / "multirun.yaml")

    def finished_by_command(self, jobs: Sequence[Job]) -> set[str]:
        """Return the names of the jobs that this command has finished, also before it was interrupted."""
        done = (job for job in jobs if is_done_by(job.folder, self.command.name, recorded_hashes(job.config)))
        return {job.name for job in done if read_results(job.folder)}

    def outcome(self, job: Job) -> tuple[str, str]:
        """Return a job's outcome, one of `_OUTCOMES`, and its reason."""
        status = read_status(job.folder)
        if status is None or status.command != self.command.name:
            return "not started", ""
        if status.status not in ("preparing", "running", "stopped"):
            return status.status, status.reason
        if self.finished_by_command([job]):
            return "done", ""  # its process was killed between results and status
        stopped = status.status == "stopped"
        return ("stopped", "by a signal") if stopped else ("unfinished", "its process was killed or is still running")

    def summarize(
        self, jobs: Sequence[Job], finished: set[str], before: Mapping[str, int] = MappingProxyType({})
    ) -> bool:
        """Write the leaderboard and print the number of jobs by outcome; return whether all have finished.

        Args:
            jobs: Jobs of this command.
            finished: Names of jobs that had finished before this command.
            before: Number of further jobs of earlier commands by outcome.
        """
        outcomes = {job.name: ("skipped", "") if job.name in finished else self.outcome(job) for job in jobs}
        counts = Counter(outcome for outcome, _ in outcomes.values()) + Counter(before)
        complete = not counts.keys() - {"done", "skipped"}
        if counts.keys() - {"not started"}:
            complete &= self._write("The leaderboard", self._write_leaderboard)
        for name, (outcome, reason) in outcomes.items():
            if reason:
                print_line(f"{outcome} {name}: {reason}", style="red")
        command = replace(self.command, complete=complete)
        complete &= self._write("The sweep's status", lambda: write_command(self.folder, command))
        if not complete:
            _log.warning("Run the same command again to resume: it keeps finished jobs and runs the others.")
        shown = ", ".join(f"{counts[each]} {each}" for each in _OUTCOMES if counts[each] or each in _OUTCOMES[:3])
        print_line(f"{counts.total()} jobs: {shown}")
        return complete

    def _write_leaderboard(self) -> None:
        from pneumo.reporting.leaderboard import write_leaderboard

        write_leaderboard([self.folder], self.folder)

    def _write(self, title: str, write: Callable[[], None]) -> bool:
        try:
            write()
        except (PneumoError, OSError) as error:  # the summary is printed regardless
            _log.error("%s could not be written: %s", title, error)
            return False
        return True

    def _overrides(self, job: Job, columns: Columns, number: int, total: int) -> list[str]:
        variables = {COMMAND: self.command.name, JOB_NUMBER: f"{number}/{total}", SWEPT: json.dumps(columns.row(job))}
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
        """Log the start and the end of jobs in other processes."""
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
        logged: dict[str, str] = {}
        last = False
        while not last:
            last = ended.wait(_POLL_INTERVAL)
            for job in jobs:
                outcome, reason = self.outcome(job)
                if outcome == "unfinished" and not last:
                    outcome, reason = "started", ""
                if outcome not in ("not started", logged.get(job.name)):
                    logged[job.name] = outcome
                    _log.info("%s %s%s", job.name, outcome, reason and f": {reason}")


@contextmanager
def open_session(config: DictConfig, launcher: Launcher) -> Iterator[Session]:
    """Lock a sweep's folder and start a command; SIGTERM ends it like Ctrl-C.

    Raises:
        ConfigError: Another process holds the lock, or the folder cannot be used.
    """
    folder = Path(config.hydra.sweep.dir)
    lock = FileLock(folder / ".lock")
    try:
        with _folder_errors(folder):
            acquire_immediately(lock, folder)
    except Timeout:
        raise ConfigError(
            f"Another process is running a sweep in {folder}. Wait until it has finished, or use another sweep.name."
        ) from None
    remove_stale_below(folder, depth=2)
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with _folder_errors(folder):
            command = start_command(folder, config.sweep.overwrite)
        yield Session(folder, command, launcher, config.launcher.parallel, config.launcher.threads)
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        signal.signal(signal.SIGTERM, before)
        lock.release()


def resolve_sweep_dir(config: DictConfig) -> Path:
    """Create the sweep's folder, set its absolute path, and return it; raise a ConfigError if it cannot be created."""
    folder = Path(config.hydra.sweep.dir).absolute()
    with _folder_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    set_hydra(config, "sweep.dir", str(folder))
    return folder


@contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    """Convert an OSError of a sweep's folder to a ConfigError."""
    try:
        yield
    except Timeout:  # of a lock; it is an OSError too
        raise
    except OSError as error:
        raise ConfigError(
            f"The sweep's folder {folder} cannot be used ({error.strerror or error}). Use another one with "
            "paths.output_dir=FOLDER, or fix its permissions or its disk. Finished jobs are kept."
        ) from error
