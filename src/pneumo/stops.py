"""Stops by a signal: what is written is whole, and the user learns how to go on."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from pneumo.errors import ConfigError

_log = logging.getLogger(__name__)

GO_ON = "python train.py ckpt_path=RUN/checkpoints/last.ckpt and this run's overrides go on with it"


@contextmanager
def explained_stops(last: Path, go_on: str) -> Iterator[None]:
    """Say what Lightning does not: why it cannot run, and how to go on from `last` after a signal."""
    try:
        yield
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning cannot run with these settings of `trainer`: {error}") from error
    except (SystemExit, KeyboardInterrupt) as stop:  # Lightning's silent answer to signals; Ctrl-C outside of it
        state = f"the last checkpoint is {last}" if last.is_file() else "no epoch was finished, and caches are kept"
        _log.warning("Stopped by a signal; %s; %s.", state, go_on.replace("RUN", str(last.parent.parent)))
        number = signal.SIGTERM if isinstance(stop, SIGTERMException) else signal.SIGINT
        code = getattr(stop, "code", None)
        raise SystemExit(code if isinstance(code, int) and code > 128 else 128 + number) from None
