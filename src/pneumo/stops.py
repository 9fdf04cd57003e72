"""Stops by a signal: what is written is whole, and the user learns how to go on."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from pneumo.entry import describe_stop
from pneumo.errors import ConfigError
from pneumo.streams import LostOutputError

_log = logging.getLogger(__name__)


@contextmanager
def explained_stops(last: Path, sweep: bool) -> Iterator[None]:
    """Log what Lightning does not: why it cannot run, and how to continue after a signal.

    Args:
        last: The run's last checkpoint, which may be missing.
        sweep: Whether the run is a job of a sweep, which finds its own checkpoint.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning cannot run with these settings of `trainer`: {error}") from error
    except LostOutputError:
        raise
    except (SystemExit, KeyboardInterrupt) as stop:  # Lightning's silent answer to signals; Ctrl-C outside of it
        _log.warning("%s", describe_stop(last, sweep))
        number = signal.SIGTERM if isinstance(stop, SIGTERMException) else signal.SIGINT
        code = getattr(stop, "code", None)
        raise SystemExit(code if isinstance(code, int) and code > 128 else 128 + number) from None
