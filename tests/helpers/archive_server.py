"""Archive like the published one, and a server that sends it complete, truncated or modified."""

import hashlib
import io
import os
import random
import socket
import struct
import sys
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pneumo.data.download import DATASET_PAGE, download_chest_xray
from pneumo.errors import DataError

NOWHERE = "http://127.0.0.1:9/never-requested"
FILES = {
    f"{folder}/{label}/{number}.jpeg": random.Random(f"{folder}{label}{number}").randbytes(5_000)
    for folder in ("train", "test")
    for label in ("NORMAL", "PNEUMONIA")
    for number in range(3)
}


def pack(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def within(prefix: str, files: dict[str, bytes] = FILES) -> dict[str, bytes]:
    return {prefix + name: content for name, content in files.items()}


ARCHIVE = pack(within("chest_xray/"))
SIZE = len(ARCHIVE)


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        self.server.agents.append(self.headers["User-Agent"])
        self.server.ranges.append(self.headers["Range"])
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    def start(self, status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def send(self, content: bytes) -> None:
        self.server.sent.append(len(content))
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


Response = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for the threads

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Response] = [whole()]
        self.agents: list[str] = []
        self.ranges: list[str | None] = []
        self.sent: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/archive"

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # the client closed the connection, as expected
            super().handle_error(request, client_address)  # type: ignore[arg-type] # passed on unchanged


def first_byte(handler: Handler) -> int:
    requested = handler.headers["Range"]
    return int(requested.removeprefix("bytes=").removesuffix("-")) if requested else 0


def whole(content: bytes = ARCHIVE, stop: int | None = None) -> Response:
    """Send the requested range; close the connection before byte `stop`."""

    def respond(handler: Handler) -> None:
        first = first_byte(handler)
        if first:
            span = f"bytes {first}-{len(content) - 1}/{len(content)}"
            handler.start(206, Content_Length=len(content) - first, Content_Range=span)
        else:
            handler.start(Content_Length=len(content))
        handler.send(content[first:stop])

    return respond


def ignore_range(handler: Handler) -> None:
    """Send the complete archive regardless of the requested range."""
    handler.start(Content_Length=SIZE)
    handler.send(ARCHIVE)


def announced(length: int | None, content: bytes = ARCHIVE) -> Response:
    """Announce `length` bytes, or no length, and send `content`."""

    def respond(handler: Handler) -> None:
        handler.start(**({} if length is None else {"Content_Length": length}))
        handler.send(content)

    return respond


def partial(content_range: str | None, content: bytes) -> Response:
    def respond(handler: Handler) -> None:
        handler.start(206, **({} if content_range is None else {"Content_Range": content_range}))
        handler.send(content)

    return respond


def status(code: int) -> Response:
    return lambda handler: handler.send_error(code)


def reset(handler: Handler) -> None:
    handler.start(Content_Length=SIZE)
    handler.send(ARCHIVE[:20_000])
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())  # with a linger time of 0, closing resets the connection


def part_of(root: Path) -> Path:
    return root.with_name(root.name + ".zip.part")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_complete(root: Path) -> None:
    assert contents(root) == FILES
    assert {path.name for path in root.parent.iterdir()} <= {root.name, f".{root.name}.lock"}


def assert_nothing_there(root: Path, *kept: Path) -> None:
    assert {path.name for path in root.parent.iterdir()} == {f".{root.name}.lock", *(path.name for path in kept)}


def unpack_archive(root: Path, archive: bytes) -> None:
    """Unpack `archive` as if downloaded; a complete .part file needs no server."""
    root.parent.mkdir(parents=True, exist_ok=True)
    part_of(root).write_bytes(archive)
    fetch(root, NOWHERE, archive)


def fetch(root: Path, url: str, archive: bytes = ARCHIVE) -> None:
    """Download a file with the size and the digest of `archive`."""
    download_chest_xray(root, url=url, size=len(archive), sha256=digest(archive))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def assert_helpful(error: DataError, root: Path) -> None:
    assert "\n" not in str(error)
    for word in (str(root), DATASET_PAGE, "data.root=FOLDER", "data=synthetic"):
        assert word in str(error)
