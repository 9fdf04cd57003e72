import asyncio
import errno
import logging
import resource
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from pneumo.inference.serve.connections import (
    INTERVAL,
    MAX_CONNECTIONS,
    MIN_RATE,
    LimitedProtocol,
    RepeatFilter,
    connection_limit,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
LIMIT = 4


async def _app(scope: object, receive: object, send: object) -> None:
    """Do nothing: `Client.get_response` sends the responses."""


class Loop:
    """An event loop without real time, which runs no tasks."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        self.now += 0.001  # makes the order of the connections unique
        return self.now

    def call_later(self, delay: float, function: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.TimerHandle(delay, function, (), self)  # type: ignore[arg-type] # a test double

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def get_debug(self) -> bool:
        return False

    def create_task(self, task: Coroutine[Any, Any, None]) -> "asyncio.Future[None]":
        task.close()
        return asyncio.Future(loop=self)  # type: ignore[arg-type] # a test double


class Client(asyncio.Transport):
    """A client and its transport."""

    def __init__(self, state: ServerState, loop: Loop) -> None:
        super().__init__()
        self.unread, self.closed = 0, False
        config = Config(_app, limit_concurrency=LIMIT + 1, log_config=None, lifespan="off")
        self.protocol = LimitedProtocol(config, state, {}, loop)
        self.protocol.connection_made(self)

    def send(self, content: bytes) -> None:
        if content:  # an event loop never passes on empty data
            self.protocol.data_received(content)

    def get_response(self, size: int = 2) -> None:
        """Send a response of the application, which the client does not read."""
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]}
        for message in (start, {"type": "http.response.body", "body": bytes(size)}):
            asyncio.run(self.protocol.cycle.send(message))  # type: ignore[arg-type] # as Starlette sends it

    def wait(self) -> bool:
        """Check progress as after an interval; return whether the connection is still open."""
        self.protocol._check()
        return not self.closed

    def write(self, data: Any) -> None:  # noqa: ANN401
        self.unread += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.closed = True

    close = abort

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


@pytest.fixture
def client() -> Client:
    return Client(ServerState(), Loop())


STARTS = {"nothing": b"", "half a header": b"GET / HTTP/1.1\r\nX-A: ", "header": POST, "body": POST + bytes(500_000)}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("more", [b"", b"a"], ids=["silent", "trickling"])
def test_a_client_without_progress_is_disconnected(start: bytes, more: bytes, client: Client) -> None:
    client.send(start)
    assert client.wait()
    client.send(more)
    assert not client.wait()


def test_a_body_at_the_minimum_rate_is_received(client: Client) -> None:
    client.send(POST)
    for _ in range(6):
        assert client.wait()
        client.send(bytes(int(MIN_RATE * INTERVAL)))
    assert client.wait()


def test_a_slow_prediction_keeps_the_connection_open(client: Client) -> None:
    client.send(GET)
    assert all(client.wait() for _ in range(100))
    client.get_response()
    client.unread = 0
    assert client.wait()
    client.send(GET)  # on the same connection
    assert all(client.wait() for _ in range(100))


def test_an_idle_connection_is_closed(client: Client) -> None:
    client.send(GET)
    client.get_response()
    client.unread = 0
    assert client.wait()
    assert not client.wait()


def test_a_response_that_is_read_too_slowly_is_dropped(client: Client) -> None:
    client.send(GET)
    client.get_response(30_000_000)
    assert client.wait()
    for _ in range(5):
        client.unread -= int(MIN_RATE * INTERVAL)
        assert client.wait()
    assert not client.wait()


def test_a_rejected_body_is_not_awaited(client: Client) -> None:
    client.send(POST)
    client.get_response()
    client.unread = 0
    assert client.wait()
    assert not client.wait()


def test_the_oldest_idle_connection_is_closed_for_a_new_one() -> None:
    state, loop = ServerState(), Loop()
    busy = Client(state, loop)
    busy.send(GET)
    waiting = [Client(state, loop) for _ in range(20)]
    assert not busy.closed
    assert [client.closed for client in waiting] == [True] * 17 + [False] * 3
    assert len(state.connections) == LIMIT
    for client in waiting[-3:]:
        client.send(GET)
    assert Client(state, loop).closed  # every other one is busy


def test_the_connection_limit_reserves_file_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit_for(descriptors: int) -> int:
        monkeypatch.setattr(resource, "getrlimit", lambda which: (descriptors, descriptors))
        return connection_limit()

    assert limit_for(resource.RLIM_INFINITY) == limit_for(100_000) == MAX_CONNECTIONS
    assert limit_for(1) == 1
    assert 1 < limit_for(256) < MAX_CONNECTIONS


def test_repeated_errors_of_the_event_loop_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("asyncio")
    repeat_filter = RepeatFilter()
    logger.addFilter(repeat_filter)
    try:
        loop = asyncio.new_event_loop()
        for message in ("socket.accept() out of system resource", "another"):
            for _ in range(100):
                loop.call_exception_handler({"message": message, "exception": OSError(errno.EMFILE, "x")})
        loop.close()
    finally:
        logger.removeFilter(repeat_filter)
    assert len(caplog.records) == 2
