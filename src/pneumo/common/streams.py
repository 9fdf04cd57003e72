"""Protection of standard output and standard error against encoding errors and failed writes."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class LostOutputError(SystemExit):
    """Standard output or error cannot be written; it is a SystemExit, so handlers of program errors ignore it.

    If the reader closed the pipe, as `| head` does, the command ends silently; otherwise with a message.
    """


@contextmanager
def guarded_output() -> Iterator[None]:
    """Escape characters that the streams cannot encode; raise a LostOutputError if a stream cannot be written."""
    for name in ("stdout", "stderr"):
        setattr(sys, name, _guard(getattr(sys, name), name))
    try:
        yield
    finally:
        if sys.stdout is not None:  # None if it was closed before the command started
            sys.stdout.flush()  # an error at interpreter exit could not be explained


def _guard(stream: TextIO | None, name: str) -> TextIO | None:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if stream is getattr(sys, f"__{name}__"):
        stream.flush()
        raw = _Guarded(stream.fileno())
        stream = io.TextIOWrapper(
            raw if stream.write_through else io.BufferedWriter(raw),  # type: ignore[type-var] # typeshed is too strict
            encoding=stream.encoding,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
    stream.reconfigure(errors="backslashreplace")
    return stream


class _Guarded(io.FileIO):
    """Raw output stream; after an error it is redirected to the null device, so that the command can clean up."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)

    def write(self, content: bytes) -> int:  # type: ignore[override] # the base class accepts any buffer
        try:
            return super().write(content)
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            if isinstance(error, BrokenPipeError):
                raise LostOutputError(1) from None
            name = "Standard output" if self.fileno() == 1 else "Standard error"
            raise LostOutputError(
                f"{name} cannot be written ({error.strerror}), so the command stopped early: free some space or "
                "redirect the output."
            ) from None
