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

from pneumo.common.disk import disk_error, mistake_behind, quiet_threads
from pneumo.common.streams import guarded_output
from pneumo.common.text import escape_line, escape_paragraph, escape_prose, install_hint, quote_override
from pneumo.config.invocation import is_sweep_job

_log = logging.getLogger(__name__)


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
                f"launcher={name} needs what is not installed: {install_hint(name)}. launcher=local needs nothing."
            )
