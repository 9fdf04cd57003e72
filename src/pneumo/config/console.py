"""Console of train.py and sweep.py: log records and user errors."""

import copy
import logging
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rich
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException

from pneumo.common.disk import disk_error, find_user_error, suppress_thread_tracebacks
from pneumo.common.streams import guarded_output
from pneumo.common.text import escape_line, escape_paragraph, escape_prose, install_hint, quote_override
from pneumo.config.invocation import is_single_run, is_sweep_job

_log = logging.getLogger(__name__)


class FileHandler(logging.FileHandler):
    """File handler that prints one line, not a traceback for each record, if the disk is full or fails."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Print the first disk error and ignore later ones."""
        error = sys.exc_info()[1]
        if not (isinstance(error, OSError) and disk_error(error)):
            super().handleError(record)
        elif not self.failed:
            self.failed = True
            print(f"{self.baseFilename} is incomplete ({error.strerror}).", file=sys.stderr)

    def close(self) -> None:
        """Close the file; ignore disk errors of the final flush."""
        try:
            super().close()
        except OSError as error:
            if disk_error(error) is None:
                raise


class ConsoleHandler(logging.Handler):
    """Print records to the console, above a live progress bar. Tracebacks are written only to the log file."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        style = "yellow" if record.levelno == logging.WARNING else "red" if record.levelno > logging.WARNING else None
        text = message_of(record)
        rich.get_console().print(text, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)


class RecordFormatter(logging.Formatter):
    """Format records for a file so that no logged text can imitate a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """Format the message, without the traceback."""
        record.message = message_of(record)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 (logging's signature)
        """Format a traceback; indent lines that start like a record, which an error message may contain."""
        return re.sub(r"(?m)^(?=\[)", " ", escape_prose(super().formatException(ei)))


def message_of(record: logging.LogRecord) -> str:
    """Return a record's message; arguments such as file names are escaped, so that each is on one line."""
    if isinstance(record.args, tuple):
        texts = (str, Path, BaseException)
        arguments = (escape_line(str(each), "\xa0") if isinstance(each, texts) else each for each in record.args)
        record = copy.copy(record)
        record.args = tuple(arguments)
    return escape_prose(record.getMessage())


@contextmanager
def user_errors() -> Iterator[None]:
    """Convert user errors to one paragraph without traceback and exit status 1.

    A single run exits itself, because Hydra would print lines on its job and on HYDRA_FULL_ERROR; a sweep raises
    Hydra's compact error, which its launcher handles. Ctrl-C logs one paragraph and exits with status 130.
    """
    try:
        with guarded_output(), suppress_thread_tracebacks():
            yield
    except KeyboardInterrupt:
        last = Path(HydraConfig.get().runtime.output_dir) / "checkpoints" / "last.ckpt"
        _log.warning("Stopped by a signal. %s", describe_resume(last))
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:  # re-raised unless a user error is among its causes
        user_error = find_user_error(error)
        if user_error is None:
            raise
        text = escape_paragraph(user_error[1])
        if is_single_run():
            print(text, file=sys.stderr)
            raise SystemExit(1) from None
        raise CompactHydraException(text) from None


def describe_resume(last: Path) -> str:
    """Return instructions to resume a run or a job of a sweep from its last checkpoint, if that exists."""
    if not last.is_file():
        return "No checkpoint was written yet: start again with the same command. Caches are kept."
    if is_sweep_job():
        return f"The same command continues from {last}."
    override = quote_override(f"ckpt_path={last}")
    return f"Resume with this run's overrides and its last checkpoint: python train.py {override} ..."


def require_launcher(arguments: Sequence[str]) -> None:
    """Exit with one paragraph if a sweep's launcher is not installed; Hydra's error does not name the package."""
    for name, plugin in (("joblib", "joblib"), ("ray", "ray"), ("slurm", "submitit")):
        if f"launcher={name}" in arguments and find_spec(f"hydra_plugins.hydra_{plugin}_launcher") is None:
            raise SystemExit(
                f"launcher={name} is not installed: {install_hint(name)}. launcher=local needs no installation."
            )
