"""Reading other people's files without a word of what is in them."""

import logging
import threading
import warnings

_LOGGERS = [logging.getLogger(name) for name in ("pydicom", "PIL")]  # both log elements' values, some when debugged
_NOWHERE: list[logging.Handler] = [logging.NullHandler()]


class _Silence:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
                # Not by the loggers' levels: to set one clears the caches of all loggers, which takes 50 us.
                self._before = [(logger.handlers, logger.propagate) for logger in _LOGGERS]
                for logger in _LOGGERS:  # their children have no handlers of their own
                    logger.handlers, logger.propagate = _NOWHERE, False
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                for logger, (handlers, propagate) in zip(_LOGGERS, self._before, strict=True):
                    logger.handlers, logger.propagate = handlers, propagate
                self._warnings.__exit__(None, None, None)


_SILENCE = _Silence()


def quietly() -> _Silence:
    """Keep pydicom's and Pillow's warnings and logs back while any thread is in here.

    They can hold a patient's data. Python keeps one list of warning filters for all threads, so that the first thread
    to enter changes it and the last to leave puts it back.
    """
    return _SILENCE
