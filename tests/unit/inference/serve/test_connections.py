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
    LEAST_RATE,
    MOST_CONNECTIONS,
    LimitedProtocol,
    Seldom,
    count_connections,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
MOST = 4


async def _app(scope: object, receive: object, send: object) -> None:
    """Stand for an application: `Client.get_answer` answers."""


class Loop:
    """An event loop whose clock stands still, and whose tasks wait."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        self.now += 0.001  # each connection is opened after the one before
        return self.now

    def call_later(self, delay: float, function: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.TimerHandle(delay, function, (), self)  # type: ignore[arg-type] # a stand-in

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def get_debug(self) -> bool:
        return False

    def create_task(self, task: Coroutine[Any, Any, None]) -> "asyncio.Future[None]":
        task.close()
        return asyncio.Future(loop=self)  # type: ignore[arg-type] # a stand-in


class Client(asyncio.Transport):
    """The other side of a connection."""

    def __init__(self, state: ServerState, loop: Loop) -> None:
        super().__init__()
        self.unread, self.closed = 0, False
        config = Config(_app, limit_concurrency=MOST + 1, log_config=None, lifespan="off")
        self.protocol = LimitedProtocol(config, state, {}, loop)
        self.protocol.connection_made(self)

    def send(self, content: bytes) -> None:
        if content:  # an event loop hands on nothing less
            self.protocol.data_received(content)

    def get_answer(self, size: int = 2) -> None:
        """Have the application answer; nothing of it is read."""
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]}
        for message in (start, {"type": "http.response.body", "body": bytes(size)}):
            asyncio.run(self.protocol.cycle.send(message))  # type: ignore[arg-type] # as Starlette sends it

    def wait(self) -> bool:
        """Let an interval pass, and tell whether the connection is still open."""
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
def test_a_client_that_does_not_move_on_is_closed(start: bytes, more: bytes, client: Client) -> None:
    client.send(start)
    assert client.wait()
    client.send(more)
    assert not client.wait()


def test_a_body_that_comes_fast_enough_is_waited_for(client: Client) -> None:
    client.send(POST)
    for _ in range(6):
        assert client.wait()
        client.send(bytes(int(LEAST_RATE * INTERVAL)))
    assert client.wait()


def test_an_answer_is_waited_for_as_long_as_it_takes(client: Client) -> None:
    client.send(GET)
    assert all(client.wait() for _ in range(100))
    client.get_answer()
    client.unread = 0
    assert client.wait()
    client.send(GET)  # on the same connection
    assert all(client.wait() for _ in range(100))


def test_a_connection_that_is_not_used_again_is_closed(client: Client) -> None:
    client.send(GET)
    client.get_answer()
    client.unread = 0
    assert client.wait()
    assert not client.wait()


def test_an_answer_that_is_not_read_is_not_kept(client: Client) -> None:
    client.send(GET)
    client.get_answer(30_000_000)
    assert client.wait()
    for _ in range(5):
        client.unread -= int(LEAST_RATE * INTERVAL)
        assert client.wait()
    assert not client.wait()


def test_a_body_that_is_refused_is_not_awaited_for_ever(client: Client) -> None:
    client.send(POST)
    client.get_answer()
    client.unread = 0
    assert client.wait()
    assert not client.wait()


def test_the_connection_that_waits_longest_makes_room() -> None:
    state, loop = ServerState(), Loop()
    busy = Client(state, loop)
    busy.send(GET)
    waiting = [Client(state, loop) for _ in range(20)]
    assert not busy.closed
    assert [client.closed for client in waiting] == [True] * 17 + [False] * 3
    assert len(state.connections) == MOST
    for client in waiting[-3:]:
        client.send(GET)
    assert Client(state, loop).closed  # there is none that could


def test_connections_leave_file_descriptors_for_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(most: int) -> int:
        monkeypatch.setattr(resource, "getrlimit", lambda which: (most, most))
        return count_connections()

    assert limited(resource.RLIM_INFINITY) == limited(100_000) == MOST_CONNECTIONS
    assert limited(1) == 1
    assert 1 < limited(256) < MOST_CONNECTIONS


def test_the_event_loop_reports_a_fault_once(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("asyncio")
    seldom = Seldom()
    logger.addFilter(seldom)
    try:
        loop = asyncio.new_event_loop()
        for message in ("socket.accept() out of system resource", "another"):
            for _ in range(100):
                loop.call_exception_handler({"message": message, "exception": OSError(errno.EMFILE, "x")})
        loop.close()
    finally:
        logger.removeFilter(seldom)
    assert len(caplog.records) == 2
