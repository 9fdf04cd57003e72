"""Limits on the number, size and duration of connections and request bodies."""

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

MAX_CONNECTIONS = 64
INTERVAL = 5.0  # seconds within which a client must finish a request's header or transfer enough of a body
MIN_RATE = 50_000  # bytes per second of a request or response body
_RESERVED_DESCRIPTORS = 32  # for image files, the event loop and libraries
_REPEAT_SECONDS = 60.0  # between two log records with the same message


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 with limits on slow clients and on the number of connections.

    uvicorn limits the size of a header and the duration of idle connections, but not the duration of a header or body.
    With its `limit_concurrency` alone, half-open requests would lock out other clients. This class therefore closes the
    oldest connection that waits for its client.
    """

    def __init__(self, config: Config, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (uvicorn's)
        """Initialise the protocol of a connection; `config.limit_concurrency` must be the maximum plus 1."""
        super().__init__(config, *args, **kwargs)
        self.opened = self.loop.time()
        self._received = self._unsent = 0
        self._state: tuple[object, object] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Make room for the connection and start to monitor its client."""
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            waiting = [other for other in self.connections if isinstance(other, LimitedProtocol) and not other.is_busy]
            oldest = min(waiting, key=lambda other: other.opened, default=self)
            self.connections.discard(oldest)  # its connection_lost may run after the next connection_made
            oldest.transport.abort()
        self._timer = self.loop.call_later(INTERVAL, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop monitoring."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count received bytes."""
        self._received += len(data)
        super().data_received(data)

    @property
    def is_busy(self) -> bool:
        """True if the request is complete and its response is not."""
        return self.conn.their_state in (h11.DONE, h11.MUST_CLOSE) and not self.cycle.response_complete

    def _check(self) -> None:
        """Close the connection if its client made no progress within an interval."""
        received, self._received = self._received, 0
        previous_unsent, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        previous_state, self._state = self._state, (self.conn.their_state, self.cycle)
        required = MIN_RATE * INTERVAL
        if self._unsent:
            stalled = 0 < previous_unsent < self._unsent + required
        elif previous_state != self._state:  # another request, or another part of it
            stalled = False
        else:
            stalled = not self.is_busy and (self.conn.their_state is not h11.SEND_BODY or received < required)
        if stalled:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(INTERVAL, self._check)


def connection_limit() -> int:
    """Compute how many connections may be open without exhausting the file descriptors.

    The event loop can accept twice the backlog of connections before the first of them is closed.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    used = len(os.listdir("/dev/fd"))
    return max(1, min(MAX_CONNECTIONS, (limit - used - _RESERVED_DESCRIPTORS) // 4))


class RepeatFilter(logging.Filter):
    """A log filter that passes each message once a minute.

    When file descriptors run out, the event loop logs the same message for each connection.
    """

    def __init__(self) -> None:
        """Start with an empty history."""
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record's message is new or was last passed long enough ago."""
        first = record.getMessage().partition("\n")[0]
        if record.created - self._passed.get(first, float("-inf")) < _REPEAT_SECONDS:
            return False
        self._passed = {first: record.created}
        return True


class TooLargeError(Exception):
    """A request body exceeds the size limit."""


class BusyError(Exception):
    """The server has no capacity for another request body or image."""


@dataclass(eq=False)
class Upload:
    """A request body in memory, stored in parts because growing byte arrays would fragment the memory."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    scope: CancelScope = field(default_factory=CancelScope)
    incomplete: bool = True

    def pop_content(self) -> bytes:
        """Return the whole body and release its parts."""
        content = b"".join(self.parts)
        self.parts.clear()
        return content


class Uploads:
    """The request bodies in memory, from their first byte until the response is ready."""

    def __init__(self, max_bytes: int, max_total_bytes: int) -> None:
        """Start without uploads; the limits are those of one body and of all bodies together."""
        self.max_bytes, self.max_total_bytes = max_bytes, max_total_bytes
        self._uploads: set[Upload] = set()

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[Upload]:
        """Receive a request's body and keep it within the context; a rejected body is dropped and not read further.

        Raises:
            TooLargeError: The body exceeds its limit.
            BusyError: All bodies together exceed their limit, and this one was the largest incomplete one.
        """
        if int(request.headers.get("Content-Length", 0)) > self.max_bytes:
            raise TooLargeError
        upload = Upload()
        self._uploads.add(upload)
        try:
            with upload.scope:
                async for part in request.stream():
                    upload.size += len(part)
                    if upload.size > self.max_bytes:
                        raise TooLargeError
                    upload.parts.append(part)
                    self._enforce_total()
            if upload.scope.cancel_called:
                raise BusyError
            upload.incomplete = False
            yield upload
        finally:
            self._uploads.discard(upload)
            upload.parts.clear()
            _trim_memory()

    def _enforce_total(self) -> None:
        """Drop the largest incomplete body if the total is too large; smaller ones stay."""
        if sum(upload.size for upload in self._uploads) > self.max_total_bytes:
            largest = max((upload for upload in self._uploads if upload.incomplete), key=lambda upload: upload.size)
            self._uploads.discard(largest)
            largest.parts.clear()
            largest.scope.cancel()


def _trim_memory() -> None:
    """Return free memory to the system; after `keep_freed_memory` glibc no longer does so by itself."""
    with suppress(OSError, AttributeError):  # other C libraries
        ctypes.CDLL("libc.so.6").malloc_trim(0)
