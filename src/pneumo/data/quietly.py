"""Reading other people's files without a word of what is in them."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_LOGGERS = ("pydicom", "PIL")  # both log elements' values, as warnings or when debugged
_lock = threading.Lock()
_readers = 0
_silence = ExitStack()


@contextmanager
def quietly() -> Iterator[None]:
    """Keep pydicom's and Pillow's warnings and logs back while any thread is in here.

    They can hold a patient's data. Python keeps one list of warning filters for all threads, so that the first thread
    to enter changes it and the last to leave puts it back.
    """
    global _readers
    with _lock:
        if _readers == 0:
            _enter()
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _silence.close()


def _enter() -> None:
    _silence.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        _silence.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL + 1)  # its children have no level of their own
