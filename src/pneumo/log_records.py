"""Log records on the terminal and in train.log, in which no text of others looks like a record."""

import copy
import logging
import re
import sys
from pathlib import Path
from typing import Any

import rich

from pneumo.escaping import escape_line, escape_prose
from pneumo.failures import disk_error


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
