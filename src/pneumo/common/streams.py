"""Guards of standard output and error: for texts that they cannot encode, and for streams that cannot be written."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


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
