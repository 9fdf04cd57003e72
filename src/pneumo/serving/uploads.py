"""Request bodies in memory, limited in size each and all together."""

from __future__ import annotations

import ctypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from anyio import CancelScope
from starlette.requests import Request


class TooLargeError(Exception):
    """A body has more bytes than one may have."""


class CrowdedError(Exception):
    """There is no room for a body, or a film, next to the others."""


@dataclass(eq=False)
class Upload:
    """A body in memory: its parts as they came, since one growing array for each would leave gaps in the memory."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    scope: CancelScope = field(default_factory=CancelScope)
    under_way: bool = True

    def take(self) -> bytes:
        """Return the whole, and hold it no longer."""
        content = b"".join(self.parts)
        self.parts.clear()
        return content


class Uploads:
    """The bodies that are in memory, from their first byte until their film is answered."""

    def __init__(self, most: int, most_together: int) -> None:
        """Start with none.

        Args:
            most: Bytes of a body.
            most_together: Bytes of all of them.
        """
        self.most, self.most_together = most, most_together
        self._held: set[Upload] = set()

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[Upload]:
        """Receive a request's body and hold it; what is refused is not held, and read no further.

        Raises:
            TooLargeError: It is larger than one may be.
            CrowdedError: All together are larger than they may be, and this one was the largest that was under way.
        """
        if int(request.headers.get("Content-Length", 0)) > self.most:
            raise TooLargeError
        upload = Upload()
        self._held.add(upload)
        try:
            with upload.scope:
                async for part in request.stream():
                    upload.size += len(part)
                    if upload.size > self.most:
                        raise TooLargeError
                    upload.parts.append(part)
                    self._make_room()
            if upload.scope.cancel_called:
                raise CrowdedError
            upload.under_way = False
            yield upload
        finally:
            self._held.discard(upload)
            upload.parts.clear()
            _give_back_memory()

    def _make_room(self) -> None:
        """Drop the largest body that is under way, if all are too large together: a small one is let in at any time."""
        if sum(upload.size for upload in self._held) > self.most_together:
            largest = max((upload for upload in self._held if upload.under_way), key=lambda upload: upload.size)
            self._held.discard(largest)
            largest.parts.clear()
            largest.scope.cancel()


def _give_back_memory() -> None:
    """Return free memory to the system, which glibc does not by itself after `pneumo.hardware.keep_freed_memory`."""
    with suppress(OSError, AttributeError):  # where the C library is not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
