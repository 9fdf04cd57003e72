import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from pneumo.inference.serve.connections import BusyError, TooLargeError, Uploads

PART = 100


class Sender:
    """A client that sends a body in parts of 100 bytes on request."""

    def __init__(self, uploads: Uploads, headers: dict[bytes, bytes] | None = None) -> None:
        scope = {"type": "http", "method": "POST", "headers": list((headers or {}).items())}
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.received, self.release, self.content = 0, asyncio.Event(), b""
        self.task = asyncio.create_task(self._receive(uploads, Request(scope, self._next)))

    async def _next(self) -> dict[str, Any]:
        message = await self.messages.get()
        self.received += 1
        return message

    async def _receive(self, uploads: Uploads, request: Request) -> None:
        async with uploads.receive(request) as upload:
            await self.release.wait()
            self.content = upload.pop_content()

    async def send(self, parts: int, last: bool = False) -> None:
        for i in range(parts):
            end = last and i == parts - 1
            self.messages.put_nowait({"type": "http.request", "body": bytes(PART), "more_body": not end})
        for _ in range(20):  # lets the other tasks run
            await asyncio.sleep(0)

    async def end(self) -> bytes:
        self.release.set()
        await self.task
        return self.content


def test_a_body_above_the_limit_is_rejected() -> None:
    async def script() -> None:
        uploads = Uploads(300, 1000)
        declared = Sender(uploads, {b"content-length": b"301"})
        with pytest.raises(TooLargeError):
            await declared.end()
        assert declared.received == 0
        endless = Sender(uploads)
        await endless.send(50)
        with pytest.raises(TooLargeError):
            await endless.end()
        assert endless.received == 4
        exact = Sender(uploads)
        await exact.send(3, last=True)
        assert await exact.end() == bytes(300)

    asyncio.run(script())


def test_the_largest_incomplete_body_is_dropped_for_a_small_one() -> None:
    async def script() -> None:
        uploads = Uploads(1000, 1200)
        complete, large, larger, small = (Sender(uploads) for _ in range(4))
        await complete.send(4, last=True)
        await large.send(3)
        await larger.send(5)
        assert not any(sender.task.done() for sender in (complete, large, larger, small))
        await small.send(1, last=True)
        with pytest.raises(BusyError):
            await larger.end()
        await large.send(1, last=True)
        assert [len(await sender.end()) for sender in (small, large, complete)] == [100, 400, 400]

    asyncio.run(script())


def test_a_body_is_rejected_if_complete_ones_use_up_the_total() -> None:
    async def script() -> None:
        uploads = Uploads(1000, 1000)
        complete, other = Sender(uploads), Sender(uploads)
        await complete.send(9, last=True)
        await other.send(2, last=True)
        with pytest.raises(BusyError):
            await other.end()
        assert len(await complete.end()) == 900
        again = Sender(uploads)  # completed predictions make room
        await again.send(10, last=True)
        assert len(await again.end()) == 1000

    asyncio.run(script())


def test_the_body_of_a_disconnected_client_is_released() -> None:
    async def script() -> None:
        uploads = Uploads(1000, 1000)
        gone, other = Sender(uploads), Sender(uploads)
        await gone.send(9)
        gone.messages.put_nowait({"type": "http.disconnect"})
        with pytest.raises(ClientDisconnect):
            await gone.end()
        await other.send(10, last=True)
        assert len(await other.end()) == 1000

    asyncio.run(script())
