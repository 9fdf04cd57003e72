"""`pneumo serve` in a separate process, and hostile clients."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

_MAIN = "from pneumo.cli import main; main()"
_KIND = "application/octet-stream"
HEADER = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {}\r\nContent-Length: {}\r\n"


class Reply(NamedTuple):
    status: int
    body: bytes
    seconds: float


class Served(NamedTuple):
    process: subprocess.Popen[str]
    port: int

    def post(self, image: bytes, timeout: float = 60.0) -> Reply:
        start = time.monotonic()
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
            connection.request("POST", "/predict", image, {"Content-Type": _KIND})
            response = connection.getresponse()
            return Reply(response.status, response.read(), time.monotonic() - start)

    def send(self, content: bytes) -> socket.socket:
        """Open a connection, send as much of `content` as the server accepts, and leave it open."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        try:
            client.sendall(content)
        except OSError:  # the server closed the connection early
            client.close()
        return client

    def send_all(self, contents: list[bytes]) -> list[socket.socket]:
        """Call `send` for all contents concurrently."""
        with ThreadPoolExecutor(len(contents)) as pool:
            return list(pool.map(self.send, contents))

    def memory(self, field: str = "VmRSS") -> float:
        """Return the resident memory in MB, or with VmHWM its peak since `forget_peak`; Linux only."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        match = re.search(rf"{field}:\s+(\d+) kB", status)
        assert match is not None, status
        return int(match[1]) / 1000

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


def upload(size: int, missing: int = 1) -> bytes:
    """Return a request with a body of `size` bytes but without its last `missing` bytes."""
    return f"{HEADER.format(_KIND, size)}\r\n".encode() + bytes(size - missing)


def is_closed(client: socket.socket, seconds: float) -> bool:
    """Return whether the server closes a connection within the given time."""
    client.settimeout(seconds)
    try:
        while client.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def serving(checkpoint: Path, before: str = "") -> Iterator[Served]:
    """Start `pneumo serve`; the process first runs the code in `before`."""
    command = [sys.executable, "-c", f"{before}\n{_MAIN}", "serve", str(checkpoint), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = re.search(r"127\.0\.0\.1:(\d+)/", process.stdout.readline())
            assert address is not None
            yield Served(process, int(address[1]))
        finally:
            process.terminate()
