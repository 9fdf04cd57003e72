"""What train.py and sweep.py share: light to import, so that --help and --cfg answer at once."""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rich
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

import pneumo.monitors  # noqa: F401 (registers the resolver that conf/callbacks uses)
from pneumo.errors import PneumoError
from pneumo.failures import disk_error, quiet_threads
from pneumo.files import escape_output, escape_path, require_writable
from pneumo.quoting import quote_override
from pneumo.run_lock import is_first_process, run_lock

_log = logging.getLogger(__name__)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a user's mistake into Hydra's short form of an error: one paragraph, no traceback, status 1.

    A stop by Ctrl-C gets one too, and status 130.
    """
    escape_output()
    try:
        with quiet_threads():
            yield
    except KeyboardInterrupt:
        job = HydraConfig.get()
        last = Path(job.runtime.output_dir) / "checkpoints" / "last.ckpt"
        _log.warning("%s", describe_stop(last, sweep=job.mode == RunMode.MULTIRUN))
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:  # to look for a mistake among its causes: all else goes on as it is
        mistake = mistake_behind(error)
        if mistake is None:
            raise
        raise CompactHydraException(mistake[1]) from None


class CheckOutputFolder(Callback):
    """Check and lock the output folder before Hydra writes to it; Hydra itself would print a traceback."""

    def __init__(self) -> None:
        """Start without a lock."""
        self.held = ExitStack()
        self.hidden: str | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Check and lock the folder of a single run, and keep Hydra from changing .hydra/ of an earlier one."""
        HydraConfig.instance().set_config(config)  # as Hydra does next: the folder's name asks for the choices
        folder = Path(config.hydra.run.dir)
        _check_writable(folder)
        name = config.hydra.output_subdir
        try:
            if is_first_process():
                self.held.enter_context(run_lock(folder))
            if name is not None and os.access(folder / name / "config.yaml", os.F_OK):
                self.hidden = name
                _set_subdir(config, None)
            if name is not None and (folder / name).exists():
                require_writable(folder / name)
        except (PneumoError, OSError) as error:
            mistake = mistake_behind(error)
            raise SystemExit(mistake[1] if mistake else str(error)) from None  # Hydra swallows other exceptions

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Restore the name of .hydra/, which the run writes when it has replaced or resumed the earlier one."""
        if self.hidden is not None:
            _set_subdir(config, self.hidden)
            HydraConfig.instance().set_config(config)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Release the folder."""
        self.held.close()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Check the folder of a sweep."""
        HydraConfig.instance().set_config(config)
        _check_writable(Path(config.hydra.sweep.dir))


class FileHandler(logging.FileHandler):
    """Log to a file; where that fails, as at a full disk, one line replaces a traceback for each record."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Print the first failure; others of a disk are silent."""
        error = sys.exc_info()[1]
        if not (isinstance(error, OSError) and disk_error(error)):
            super().handleError(record)
        elif not self.failed:
            self.failed = True
            print(f"{self.baseFilename} is incomplete ({error.strerror}).", file=sys.stderr)

    def close(self) -> None:
        """Close the file, of which a full disk may refuse the rest."""
        try:
            super().close()
        except OSError as error:
            if disk_error(error) is None:
                raise


class ConsoleHandler(logging.Handler):
    """Log to the terminal without tearing a live progress bar, plain lines elsewhere; tracebacks are for files."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        style = "yellow" if record.levelno == logging.WARNING else "red" if record.levelno > logging.WARNING else None
        rich.get_console().print(record.getMessage(), style=style, markup=False, highlight=False, soft_wrap=True)


def mistake_behind(error: BaseException | None) -> tuple[str, str] | None:
    """Give the type and message of a user's mistake that caused an error, however deep; None if there is none."""
    while error is not None:
        if isinstance(error, OSError) and (failure := disk_error(error)) is not None:
            return type(failure).__name__, str(failure)
        if isinstance(error, PneumoError):
            # A DataLoader's worker sends its error as text: the message follows the traceback and the class's name.
            name = type(error).__name__
            return name, str(error).rpartition(f"{name}: ")[2].strip()
        error = error.__cause__
    return None


def describe_stop(last: Path, sweep: bool) -> str:
    """Describe how to continue after a stop by a signal; the arguments are those of `describe_resume`."""
    return f"Stopped by a signal. {describe_resume(last, sweep)}"


def describe_resume(last: Path, sweep: bool) -> str:
    """Describe how to continue a run that has ended early.

    Args:
        last: The run's last checkpoint, which may be missing.
        sweep: Whether the run is a job of a sweep, which finds its own checkpoint.
    """
    if not last.is_file():
        return "No checkpoint was written yet: start again with the same command. Caches are kept."
    if sweep:
        return f"The same command continues from {last}."
    override = quote_override(f"ckpt_path={last}")
    return f"Continue with this run's overrides and its last checkpoint: python train.py {override} ..."


def run_dir(ckpt_path: str | None, fresh: str) -> str:
    """Give a run's folder: a fresh one, or that of the checkpoint which the run goes on from."""
    if ckpt_path is None:
        return fresh
    checkpoints = Path(ckpt_path).parent
    return str(checkpoints.parent) if checkpoints.name == "checkpoints" else fresh


def require_launcher(arguments: Sequence[str]) -> None:
    """End with one paragraph if a sweep's launcher is not installed; Hydra's error would not say what is missing."""
    for name, plugin in (("joblib", "joblib"), ("ray", "ray"), ("slurm", "submitit")):
        if f"launcher={name}" in arguments and find_spec(f"hydra_plugins.hydra_{plugin}_launcher") is None:
            raise SystemExit(
                f"launcher={name} needs what is not installed: pip install 'pneumo[{name}]', or, in a checkout, "
                f"pip install -e '.[{name}]'. launcher=local needs nothing."
            )


def gpu_here() -> int:
    """Give 1 if this machine has an Nvidia GPU, else 0, without a need for PyTorch."""
    return int(any(Path("/dev").glob("nvidia[0-9]*")))


OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)
OmegaConf.register_new_resolver("gpu_here", gpu_here, replace=True)


def _set_subdir(config: DictConfig, name: str | None) -> None:
    with read_write(config.hydra):
        config.hydra.output_subdir = name


def _check_writable(folder: Path) -> None:
    if (name := str(folder.absolute())) != escape_path(name):
        raise SystemExit(
            f"The output folder {name} has a name that is not UTF-8, which checkpoints and TensorBoard cannot have: "
            "choose another one with paths.output_dir=FOLDER."
        )
    try:
        require_writable(folder)
    except OSError as error:
        raise SystemExit(
            f"The output folder {folder} cannot be written ({error.strerror}): choose another one with "
            "paths.output_dir=FOLDER, or mend its permissions or its disk."
        ) from None
