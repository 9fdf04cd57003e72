"""Limits of connections and request bodies in number, size and time."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import h11
from anyio import CancelScope
from starlette.requests import Request
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 64
INTERVAL = 5.0  # seconds in which a client must move on: send a request's header, or so many bytes
LEAST_RATE = 50_000  # bytes a second, of a body or of an answer
_RESERVE = 32  # file descriptors for films, sockets of the event loop, and libraries
_PATIENCE = 60.0  # seconds between two reports of one fault of the event loop


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 that closes the connections of clients that send or read too slowly, or that are too many.

    uvicorn has a limit for the size of a request's header and for idle connections, but none for the time that a header
    or a body takes. Its `limit_concurrency` refuses requests once there are so many connections; here the connection
    that has waited longest for its client is closed before, so that half-open requests keep nobody out.
    """

    def __init__(self, config: Config, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (uvicorn's)
        """Make the protocol of one connection; `config.limit_concurrency` is one more than may be open."""
        super().__init__(config, *args, **kwargs)
        self.opened = self.loop.time()
        self._received = self._unsent = 0
        self._seen: tuple[object, object] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Make room for the connection and start to watch its client."""
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            waiting = [other for other in self.connections if isinstance(other, LimitedProtocol) and not other.is_busy]
            oldest = min(waiting, key=lambda other: other.opened, default=self)
            self.connections.discard(oldest)  # its own farewell comes later than the next connection may
            oldest.transport.abort()
        self._timer = self.loop.call_later(INTERVAL, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes in."""
        self._received += len(data)
        super().data_received(data)

    @property
    def is_busy(self) -> bool:
        """Whether the client has done its part and waits for the application."""
        return self.conn.their_state in (h11.DONE, h11.MUST_CLOSE) and not self.cycle.response_complete

    def _check(self) -> None:
        """Close the connection if its client has not moved on in a whole interval."""
        received, self._received = self._received, 0
        unsent, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        seen, self._seen = self._seen, (self.conn.their_state, self.cycle)
        least = LEAST_RATE * INTERVAL
        if self._unsent:
            stuck = 0 < unsent < self._unsent + least
        elif seen != self._seen:  # it was another request, or another part of it
            stuck = False
        else:
            stuck = not self.is_busy and (self.conn.their_state is not h11.SEND_BODY or received < least)
        if stuck:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(INTERVAL, self._check)


def count_connections() -> int:
    """Return how many connections may be open, so that file descriptors are left for all else.

    The event loop accepts a backlog of as many connections twice over before the first of them can be closed.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    taken = len(os.listdir("/dev/fd"))
    return max(1, min(MOST_CONNECTIONS, (most - taken - _RESERVE) // 4))


class Seldom(logging.Filter):
    """Let each message pass once a minute: out of resources, the event loop repeats itself for each connection."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record's message is new, or old enough."""
        first = record.getMessage().partition("\n")[0]
        if record.created - self._passed.get(first, float("-inf")) < _PATIENCE:
            return False
        self._passed = {first: record.created}
        return True


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
        """Start with none; a body has at most so many bytes, and so have all of them together."""
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
    """Return free memory to the system, which glibc does not do by itself after `keep_freed_memory`."""
    with suppress(OSError, AttributeError):  # where the C library is not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
