"""Console of train.py and sweep.py: guarded streams, log records and user errors; and the resolvers of conf/."""

import copy
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

import rich
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf

from pneumo.common.disk import disk_error, quiet_threads
from pneumo.common.text import escape_line, escape_paragraph, escape_prose, quote_override
from pneumo.config.invocation import is_sweep_job
from pneumo.config.relations import monitor_mode
from pneumo.errors import PneumoError

_log = logging.getLogger(__name__)


class LostOutputError(SystemExit):
    """Standard output or error cannot be written; no handler of errors takes this for a failure of the program.

    Where the reader has gone away, as after `| head`, the command ends without a word; else with a sentence.
    """


@contextmanager
def guarded_output() -> Iterator[None]:
    """Escape what the streams cannot encode; raise a LostOutputError where they cannot be written."""
    for name in ("stdout", "stderr"):
        setattr(sys, name, _guard(getattr(sys, name), name))
    try:
        yield
    finally:
        if sys.stdout is not None:  # it was closed before the command began
            sys.stdout.flush()  # at the interpreter's end it would be too late to explain


def _guard(stream: TextIO | None, name: str) -> TextIO | None:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if stream is getattr(sys, f"__{name}__"):
        stream.flush()
        raw = _Guarded(stream.fileno())
        stream = io.TextIOWrapper(
            raw if stream.write_through else io.BufferedWriter(raw),  # type: ignore[type-var] # typeshed asks for more
            encoding=stream.encoding,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
    stream.reconfigure(errors="backslashreplace")
    return stream


class _Guarded(io.FileIO):
    """One of the two streams; after an error it leads nowhere, so that the end of the command can go on."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)

    def write(self, content: bytes) -> int:  # type: ignore[override] # any buffer, to which len() applies
        try:
            return super().write(content)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if isinstance(error, BrokenPipeError):
                raise LostOutputError(1) from None
            name = "Standard output" if self.fileno() == 1 else "Standard error"
            raise LostOutputError(
                f"{name} cannot be written ({error.strerror}), so the command has ended before its work was done: "
                "make room, or send the output to another place."
            ) from None


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


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a user's mistake into Hydra's short form of an error: one paragraph, no traceback, status 1.

    A stop by Ctrl-C gets one too, and status 130.
    """
    try:
        with guarded_output(), quiet_threads():
            yield
    except KeyboardInterrupt:
        last = Path(HydraConfig.get().runtime.output_dir) / "checkpoints" / "last.ckpt"
        _log.warning("Stopped by a signal. %s", describe_resume(last))
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:  # to look for a mistake among its causes: all else goes on as it is
        mistake = mistake_behind(error)
        if mistake is None:
            raise
        raise CompactHydraException(escape_paragraph(mistake[1])) from None


def mistake_behind(error: BaseException | None) -> tuple[str, str] | None:
    """Return the type and message of a user's mistake that caused an error, however deep; None if there is none."""
    while error is not None:
        if isinstance(error, OSError) and (failure := disk_error(error)) is not None:
            return type(failure).__name__, str(failure)
        if isinstance(error, PneumoError):
            # A DataLoader's worker sends its error as text: the message follows the traceback and the class's name.
            name = type(error).__name__
            return name, str(error).rpartition(f"{name}: ")[2].strip()
        error = error.__cause__
    return None


def describe_resume(last: Path) -> str:
    """Describe how to continue a run, perhaps a job of a sweep, from its last checkpoint, which may be missing."""
    if not last.is_file():
        return "No checkpoint was written yet: start again with the same command. Caches are kept."
    if is_sweep_job():
        return f"The same command continues from {last}."
    override = quote_override(f"ckpt_path={last}")
    return f"Continue with this run's overrides and its last checkpoint: python train.py {override} ..."


def require_launcher(arguments: Sequence[str]) -> None:
    """End with one paragraph if a sweep's launcher is not installed; Hydra's error would not say what is missing."""
    for name, plugin in (("joblib", "joblib"), ("ray", "ray"), ("slurm", "submitit")):
        if f"launcher={name}" in arguments and find_spec(f"hydra_plugins.hydra_{plugin}_launcher") is None:
            raise SystemExit(
                f"launcher={name} needs what is not installed: pip install 'pneumo[{name}]', or, in a checkout, "
                f"pip install -e '.[{name}]'. launcher=local needs nothing."
            )


def run_dir(ckpt_path: str | None, fresh: str) -> str:
    """Return a run's folder: a fresh one, or that of the checkpoint which the run goes on from."""
    if ckpt_path is None:
        return fresh
    checkpoints = Path(ckpt_path).parent
    return str(checkpoints.parent) if checkpoints.name == "checkpoints" else fresh


def gpu_here() -> int:
    """Return 1 if this machine has an Nvidia GPU, else 0, without a need for PyTorch."""
    return int(any(Path("/dev").glob("nvidia[0-9]*")))


for resolver in (run_dir, gpu_here, monitor_mode):
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
