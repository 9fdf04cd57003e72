"""What train.py and sweep.py share: light to import, so that --help and --cfg answer at once."""

import copy
import logging
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rich
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import pneumo.monitors  # noqa: F401 (registers the resolver that conf/callbacks uses)
from pneumo.errors import PneumoError
from pneumo.escaping import escape_line, escape_paragraph, escape_prose
from pneumo.files import escape_path
from pneumo.quoting import quote_override
from pneumo.streams import guarded_output

_log = logging.getLogger(__name__)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a user's mistake into Hydra's short form of an error: one paragraph, no traceback, status 1.

    A stop by Ctrl-C gets one too, and status 130.
    """
    try:
        with guarded_output():
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
        raise CompactHydraException(escape_paragraph(mistake[1])) from None


class CheckOutputFolder(Callback):
    """Say it in one paragraph if the output folder cannot be written; Hydra itself would print a traceback."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Check the folder of a single run."""
        HydraConfig.instance().set_config(config)  # as Hydra does next: the folder's name asks for the choices
        _check_writable(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Check the folder of a sweep."""
        HydraConfig.instance().set_config(config)
        _check_writable(Path(config.hydra.sweep.dir))


class ConsoleHandler(logging.Handler):
    """Log to the terminal without tearing a live progress bar, plain lines elsewhere; tracebacks are for files."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        style = "yellow" if record.levelno == logging.WARNING else "red" if record.levelno > logging.WARNING else None
        text = message_of(record)
        rich.get_console().print(text, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)


class RecordFormatter(logging.Formatter):
    """Format records for a file, in which no text of others looks like a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """Format the first part, which comes before a traceback."""
        record.message = message_of(record)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 (logging's signature)
        """Format a traceback, whose last lines are an error's message."""
        return re.sub(r"(?m)^(?=\[)", " ", escape_prose(super().formatException(ei)))


def message_of(record: logging.LogRecord) -> str:
    """Return a record's message; what it was made of, such as names of files, is escaped, each on one line."""
    if isinstance(record.args, tuple):
        texts = (str, Path, BaseException)
        arguments = (escape_line(str(each), "\xa0") if isinstance(each, texts) else each for each in record.args)
        record = copy.copy(record)
        record.args = tuple(arguments)
    return escape_prose(record.getMessage())


def mistake_behind(error: BaseException | None) -> tuple[str, str] | None:
    """Give the type and message of a user's mistake that caused an error, however deep; None if there is none."""
    while error is not None:
        if isinstance(error, PneumoError):
            # A DataLoader's worker sends its error as text: the message follows the traceback and the class's name.
            name = type(error).__name__
            return name, str(error).rpartition(f"{name}: ")[2].strip()
        error = error.__cause__
    return None


def describe_stop(last: Path, sweep: bool) -> str:
    """Describe how to continue after a stop by a signal.

    Args:
        last: The run's last checkpoint, which may be missing.
        sweep: Whether the run is a job of a sweep, which finds its own checkpoint.
    """
    if not last.is_file():
        how = "No checkpoint was written yet: start again with the same command. Caches are kept."
    elif sweep:
        how = f"The same command continues from {last}."
    else:
        override = quote_override(f"ckpt_path={last}")
        how = f"Continue with this run's overrides and its last checkpoint: python train.py {override} ..."
    return f"Stopped by a signal. {how}"


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


def _check_writable(folder: Path) -> None:
    if (name := str(folder.absolute())) != escape_path(name):
        raise SystemExit(
            f"The output folder {name} has a name that is not UTF-8, which checkpoints and TensorBoard cannot have: "
            "choose another one with paths.output_dir=FOLDER."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        # Hydra swallows a callback's exceptions, but not this one.
        raise SystemExit(
            f"The output folder {folder} cannot be written ({error.strerror}): choose another one with "
            "paths.output_dir=FOLDER, or mend its permissions or its disk."
        ) from None
