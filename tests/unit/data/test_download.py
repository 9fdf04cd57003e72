import io
import logging
import os
import random
import re
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo import __version__
from pneumo.data import download
from pneumo.data.download import PAGE, TRIES, download_chest_xray
from pneumo.errors import DataError

LOGGER = "pneumo.data.download"
NOWHERE = "http://127.0.0.1:9/never-asked"
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


Answer = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for the threads

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Answer] = [whole()]
        self.agents: list[str] = []
        self.ranges: list[str | None] = []
        self.sent: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/archive"

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # the client hung up, as it should
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def first_byte(handler: Handler) -> int:
    asked = handler.headers["Range"]
    return int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0


def whole(content: bytes = ARCHIVE, stop: int | None = None) -> Answer:
    """Answer ranges; `stop` cuts the connection before that byte, without a word."""

    def answer(handler: Handler) -> None:
        first = first_byte(handler)
        if first:
            span = f"bytes {first}-{len(content) - 1}/{len(content)}"
            handler.start(206, Content_Length=len(content) - first, Content_Range=span)
        else:
            handler.start(Content_Length=len(content))
        handler.send(content[first:stop])

    return answer


def always_all(handler: Handler) -> None:
    handler.start(Content_Length=SIZE)
    handler.send(ARCHIVE)


def announced(length: int | None, content: bytes = ARCHIVE) -> Answer:
    """Announce `length` bytes, or none, and send `content`."""

    def answer(handler: Handler) -> None:
        handler.start(**({} if length is None else {"Content_Length": length}))
        handler.send(content)

    return answer


def partial(content_range: str | None, content: bytes) -> Answer:
    def answer(handler: Handler) -> None:
        handler.start(206, **({} if content_range is None else {"Content_Range": content_range}))
        handler.send(content)

    return answer


def status(code: int) -> Answer:
    return lambda handler: handler.send_error(code)


def reset(handler: Handler) -> None:
    handler.start(Content_Length=SIZE)
    handler.send(ARCHIVE[:20_000])
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())  # with no lingering, closing resets


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def quick_and_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chest_xray"


def part_of(root: Path) -> Path:
    return root.with_name(root.name + ".zip.part")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_complete(root: Path) -> None:
    assert contents(root) == FILES
    assert {path.name for path in root.parent.iterdir()} <= {root.name, f".{root.name}.lock"}


def assert_nothing_there(root: Path, *kept: Path) -> None:
    assert {path.name for path in root.parent.iterdir()} == {f".{root.name}.lock", *(path.name for path in kept)}


def give(root: Path, archive: bytes) -> None:
    """Unpack `archive` as if it had been downloaded: a complete .part needs no server."""
    root.parent.mkdir(parents=True, exist_ok=True)
    part_of(root).write_bytes(archive)
    download_chest_xray(root, url=NOWHERE, size=len(archive))


# Downloading


def test_the_folders_are_at_root_and_nothing_else_is_left(server: Server, root: Path) -> None:
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)
    assert server.ranges == [None]
    assert server.agents == [f"pneumo/{__version__}"]


def test_a_second_call_asks_nobody(server: Server, root: Path) -> None:
    download_chest_xray(root, url=server.url, size=SIZE)
    download_chest_xray(root, url=server.url, size=SIZE)
    assert len(server.ranges) == 1


def test_an_existing_data_set_needs_no_writable_place_beside_it(root: Path) -> None:
    (root / "train").mkdir(parents=True)
    download_chest_xray(root, url=NOWHERE)
    assert [path.name for path in root.parent.iterdir()] == [root.name]


@pytest.mark.parametrize("have", [1, 12_345, SIZE - 1])
def test_a_partial_file_is_completed_by_the_rest_alone(server: Server, root: Path, have: int) -> None:
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:have])
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)
    assert server.ranges == [f"bytes={have}-"]
    assert server.sent == [SIZE - have]


def test_a_complete_partial_file_is_not_downloaded_again(root: Path) -> None:
    give(root, ARCHIVE)
    assert_complete(root)


def test_a_partial_file_that_is_too_large_is_downloaded_anew(server: Server, root: Path) -> None:
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE + b"more")
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)
    assert server.ranges == [None]


def test_a_redirection_keeps_the_range(server: Server, root: Path) -> None:
    server.script = [lambda handler: handler.start(302, Location="/elsewhere"), whole()]
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:100])
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)
    assert server.ranges == ["bytes=100-", "bytes=100-"]


def test_a_connection_that_is_cut_twice_goes_on_each_time(server: Server, root: Path) -> None:
    server.script = [whole(stop=20_000), whole(stop=40_000), whole()]
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)
    assert server.ranges == [None, "bytes=20000-", "bytes=40000-"]
    assert sum(server.sent) == SIZE


def test_progress_gives_back_all_retries(server: Server, root: Path) -> None:
    silent = [whole(stop=0)] * (TRIES - 1)
    server.script = [*silent, whole(stop=20_000), *silent, whole(stop=40_000), *silent, whole()]
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)


def test_a_connection_that_is_reset_is_tried_again(
    server: Server, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.script = [reset, whole()]
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)
    assert "reset by peer" in caplog.text


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_server_in_trouble_is_asked_again(server: Server, root: Path, code: int) -> None:
    server.script = [status(code), whole(stop=20_000), status(code), whole()]
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)


def test_a_connection_that_is_cut_for_ever_keeps_what_came_and_the_next_call_goes_on(
    server: Server, root: Path
) -> None:
    server.script = [whole(stop=20_000)]
    with pytest.raises(DataError, match=rf"closed the connection early; 20,000 of {SIZE:,} bytes") as caught:
        download_chest_xray(root, url=server.url, size=SIZE)
    assert str(part_of(root)) in str(caught.value)
    assert "the same command goes on from there" in str(caught.value)
    assert len(server.ranges) == 1 + TRIES
    assert part_of(root).read_bytes() == ARCHIVE[:20_000]
    server.script = [whole()]
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)
    assert server.sent[-1] == SIZE - 20_000


def test_a_network_that_goes_away_midway_is_waited_for(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:

        def serve_once() -> None:
            connection, _ = listener.accept()
            listener.close()
            with connection:
                connection.recv(10_000)
                connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode() + ARCHIVE[:500])

        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        served = pool.submit(serve_once)
        with pytest.raises(DataError, match=rf"refused\); 500 of {SIZE:,} bytes"):
            download_chest_xray(root, url=url, size=SIZE)
        served.result()
    assert len(caplog.records) == TRIES


def test_a_server_without_ranges_is_asked_for_all(server: Server, root: Path) -> None:
    server.script = [always_all]
    root.parent.mkdir()
    part_of(root).write_bytes(b"x" * 30_000)
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)


def test_a_server_without_ranges_that_cuts_at_random_is_not_asked_for_ever(server: Server, root: Path) -> None:
    ends = [300, 200, 100] * 20
    server.script = [announced(SIZE, ARCHIVE[:end]) for end in ends]
    with pytest.raises(DataError, match="goes on from there"):
        download_chest_xray(root, url=server.url, size=SIZE)
    assert len(server.ranges) == 1 + TRIES


@pytest.mark.parametrize(
    "answer",
    [
        partial(f"bytes 200-{SIZE - 1}/{SIZE}", ARCHIVE[200:]),
        partial("octets of some kind", ARCHIVE[100:]),
        partial(None, ARCHIVE[100:]),
        status(416),
    ],
)
def test_another_range_than_the_one_asked_for_is_not_used(server: Server, root: Path, answer: Answer) -> None:
    server.script = [answer, whole()]
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:100])
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)
    assert server.ranges == ["bytes=100-", None]


def test_a_range_from_the_start_replaces_what_was_there(server: Server, root: Path) -> None:
    server.script = [partial(f"bytes 0-{SIZE - 1}/{SIZE}", ARCHIVE)]
    root.parent.mkdir()
    part_of(root).write_bytes(b"x" * 100)
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)


def test_ranges_alone_that_nobody_asked_for_are_refused(server: Server, root: Path) -> None:
    server.script = [partial(f"bytes 7-{SIZE - 1}/{SIZE}", ARCHIVE[7:])]
    with pytest.raises(DataError, match="another range"):
        download_chest_xray(root, url=server.url, size=SIZE)


# The archive's size


@pytest.mark.parametrize("length", [SIZE - 1, SIZE + 1, 0])
def test_a_wrong_announced_size_is_refused_before_anything_is_kept(server: Server, root: Path, length: int) -> None:
    server.script = [announced(length)]
    with pytest.raises(DataError, match=rf"announces {length:,} bytes, but the archive has {SIZE:,}"):
        download_chest_xray(root, url=server.url, size=SIZE)
    assert len(server.ranges) == 1
    assert_nothing_there(root)


def test_a_wrong_announced_size_leaves_a_partial_file_alone(server: Server, root: Path) -> None:
    server.script = [whole(ARCHIVE + b"!")]
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:100])
    with pytest.raises(DataError, match=rf"announces {SIZE + 1:,} bytes"):
        download_chest_xray(root, url=server.url, size=SIZE)
    assert part_of(root).read_bytes() == ARCHIVE[:100]


def test_bytes_beyond_the_announced_ones_are_left(server: Server, root: Path) -> None:
    server.script = [announced(SIZE, ARCHIVE + b"more")]
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)


def test_an_unannounced_size_is_counted(server: Server, root: Path) -> None:
    server.script = [announced(None)]
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)


def test_an_unknown_total_in_a_range_is_counted(server: Server, root: Path) -> None:
    server.script = [partial(f"bytes 100-{SIZE - 1}/*", ARCHIVE[100:])]
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:100])
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)


def test_an_unannounced_surplus_is_refused_and_cannot_pass_later(server: Server, root: Path) -> None:
    server.script = [announced(None, ARCHIVE + b"more")]
    for _ in range(2):
        with pytest.raises(DataError, match=rf"more than the {SIZE:,} bytes"):
            download_chest_xray(root, url=server.url, size=SIZE)
        assert part_of(root).stat().st_size == 0
    assert server.ranges == [None, None]


def test_an_unannounced_end_before_the_last_byte_is_tried_again(server: Server, root: Path) -> None:
    server.script = [announced(None, ARCHIVE[:-1])]
    with pytest.raises(DataError, match=rf"{SIZE - 1:,} of {SIZE:,} bytes"):
        download_chest_xray(root, url=server.url, size=SIZE)


def test_a_log_in_page_does_not_cost_what_was_downloaded(server: Server, root: Path) -> None:
    def portal(handler: Handler) -> None:
        handler.start(Content_Type="text/html; charset=utf-8")
        handler.send(b"<p>Welcome")

    server.script = [portal]
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:100])
    with pytest.raises(DataError, match="web page"):
        download_chest_xray(root, url=server.url, size=SIZE)
    assert part_of(root).read_bytes() == ARCHIVE[:100]


# No network


def assert_helpful(error: DataError, root: Path) -> None:
    assert "\n" not in str(error)
    for word in (str(root), PAGE, "data.root=FOLDER", "data=synthetic"):
        assert word in str(error)


@pytest.mark.parametrize(("code", "tries"), [(403, 1), (404, 1), (503, TRIES)])
def test_a_refusing_server_is_named_with_its_status(server: Server, root: Path, code: int, tries: int) -> None:
    server.script = [status(code)]
    with pytest.raises(DataError, match=f"the server answered {code} ") as caught:
        download_chest_xray(root, url=server.url, size=SIZE)
    assert_helpful(caught.value, root)
    assert len(server.ranges) == tries


def test_without_a_network_there_is_no_waiting(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with pytest.raises(DataError, match=r"no connection \(.*refused\)") as caught:
        download_chest_xray(root, url=url, size=SIZE)
    assert_helpful(caught.value, root)
    assert "bytes are kept" not in str(caught.value)
    assert caplog.records == []


def test_a_server_that_says_nothing_is_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.02)
    listener = socket.create_server(("127.0.0.1", 0))  # its backlog takes connections, nobody answers
    with listener, pytest.raises(DataError, match="timed out") as caught:
        download_chest_xray(root, url=f"http://127.0.0.1:{listener.getsockname()[1]}/", size=SIZE)
    assert_helpful(caught.value, root)


# Progress


def test_without_a_terminal_each_tenth_is_logged(
    server: Server, root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    caplog.set_level(logging.INFO, LOGGER)
    server.script = [whole(stop=SIZE * n // 20 + 1) for n in range(1, 20)] + [whole()]
    download_chest_xray(root, url=server.url, size=SIZE)
    found = [re.match(r"Downloaded (\d+) % of", record.getMessage()) for record in caplog.records]
    assert [int(match[1]) for match in found if match] == list(range(10, 101, 10))


def test_a_terminal_gets_a_bar(
    server: Server, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    download_chest_xray(root, url=server.url, size=SIZE)
    assert f"{SIZE / 1000:.1f}/{SIZE / 1000:.1f} kB" in capsys.readouterr().err


# The place


def test_an_empty_folder_is_replaced(server: Server, root: Path) -> None:
    root.mkdir(parents=True)
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)


def test_a_link_to_an_empty_folder_leads_to_the_data(server: Server, root: Path, tmp_path: Path) -> None:
    target = tmp_path / "big disk" / "x-rays"
    target.mkdir(parents=True)
    root.parent.mkdir()
    root.symlink_to(target)
    download_chest_xray(root, url=server.url, size=SIZE)
    assert root.is_symlink()
    assert_complete(target)


def test_other_files_in_the_folder_are_not_touched(root: Path) -> None:
    (root / "test").mkdir(parents=True)
    (root / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="no folder train") as caught:
        download_chest_xray(root, url=NOWHERE)
    assert_helpful(caught.value, root)
    assert contents(root) == {"notes.txt": b"mine"}


def test_a_mount_point_is_refused_before_the_download(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir(parents=True)
    monkeypatch.setattr(os.path, "ismount", lambda path: path == root)
    with pytest.raises(DataError, match="no folder train, yet is not an empty folder"):
        download_chest_xray(root, url=NOWHERE)


def test_a_folder_that_cannot_be_made_is_named(root: Path) -> None:
    root.parent.write_text("a file")
    with pytest.raises(DataError, match=re.escape(str(root.parent))) as caught:
        download_chest_xray(root, url=NOWHERE)
    assert_helpful(caught.value, root)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named_with_its_remedy(server: Server, root: Path) -> None:
    root.parent.mkdir()
    part_of(root).symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"the disk is full \(No space.* bigger disk") as caught:
        download_chest_xray(root, url=server.url, size=SIZE)
    assert_helpful(caught.value, root)


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2 * free, free, free))


def test_too_small_a_disk_is_told_before_the_download(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 2 * SIZE - 1)
    with pytest.raises(DataError, match=rf"{2 * SIZE:,} bytes are needed .* {2 * SIZE - 1:,} are free.* bigger disk"):
        download_chest_xray(root, url=server.url, size=SIZE)
    assert server.ranges == []
    with_free(monkeypatch, 2 * SIZE)
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)


def test_too_small_a_disk_for_unpacking_keeps_the_archive(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = within("chest_xray/", {**FILES, "train/zeros": bytes(100_000)})
    archive = pack(files, zipfile.ZIP_DEFLATED)
    unpacked = sum(map(len, files.values()))
    assert len(archive) < unpacked
    with_free(monkeypatch, unpacked - 1)
    with pytest.raises(DataError, match=rf"{unpacked:,} bytes are needed"):
        give(root, archive)
    assert_nothing_there(root, part_of(root))


def test_what_a_crash_left_is_replaced(server: Server, root: Path) -> None:
    stale = root.with_name(f".{root.name}.unpacking") / "chest_xray" / "train" / "NORMAL"
    stale.mkdir(parents=True)
    (stale / "0.jpeg").write_bytes(b"half")
    part_of(root).write_bytes(ARCHIVE[:1000])
    download_chest_xray(root, url=server.url, size=SIZE)
    assert_complete(root)


def gated(server: Server) -> Answer:
    """Hold the first answer until a second request has had the time to come, as it would without a lock."""
    second = threading.Event()

    def answer(handler: Handler) -> None:
        if len(server.ranges) > 1:
            second.set()
        second.wait(0.5)
        whole()(handler)

    return answer


def test_of_two_threads_one_downloads(server: Server, root: Path) -> None:
    server.script = [gated(server)]
    barrier = threading.Barrier(2)

    def run() -> None:
        barrier.wait()
        download_chest_xray(root, url=server.url, size=SIZE)

    with ThreadPoolExecutor(2) as pool:
        for result in [pool.submit(run), pool.submit(run)]:
            result.result()
    assert len(server.ranges) == 1
    assert_complete(root)


def test_of_two_processes_one_downloads(server: Server, root: Path) -> None:
    server.script = [gated(server)]
    code = (  # by its path: the package would import torch, for seconds
        "import runpy, sys; from pathlib import Path; get = runpy.run_path(sys.argv[1])['download_chest_xray']; "
        "get(Path(sys.argv[2]), url=sys.argv[3], size=int(sys.argv[4]))"
    )
    command = [sys.executable, "-c", code, download.__file__, str(root), server.url, str(SIZE)]
    with subprocess.Popen(command) as one, subprocess.Popen(command) as two:
        assert (one.wait(), two.wait()) == (0, 0)
    assert len(server.ranges) == 1
    assert_complete(root)


# Unpacking


@pytest.mark.parametrize("prefix", ["", "chest_xray/", "./", "a/b/chest_xray/", "chest_xray\\"])
def test_the_folders_are_found_wherever_they_are_in_the_archive(root: Path, prefix: str) -> None:
    give(root, pack(within(prefix)))
    assert_complete(root)


def test_of_nested_copies_the_outer_one_counts(root: Path) -> None:
    nested = {"train/NORMAL/0.jpeg": b"copy", "test/NORMAL/0.jpeg": b"copy"}
    give(root, pack(within("chest_xray/chest_xray/", nested) | within("chest_xray/")))
    assert contents(root) == FILES | within("chest_xray/", nested)


def test_junk_is_left_out(root: Path) -> None:
    junk = {
        "__MACOSX/chest_xray/train/._0.jpeg": b"resource fork",
        "__MACOSX/chest_xray/test/._0.jpeg": b"resource fork",
        "chest_xray/__MACOSX/._x": b"resource fork",
        "chest_xray/.DS_Store": b"window position",
        "chest_xray/train/.DS_Store": b"window position",
    }
    give(root, pack(junk | within("chest_xray/")))
    assert_complete(root)


def test_members_of_folders_and_identical_duplicates_are_fine(root: Path) -> None:
    buffer = io.BytesIO(ARCHIVE)
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the duplicate
        archive.writestr("chest_xray/train/", b"")
        archive.writestr("chest_xray/train/NORMAL/0.jpeg", FILES["train/NORMAL/0.jpeg"])
    give(root, buffer.getvalue())
    assert_complete(root)


def with_member(name: str | zipfile.ZipInfo, content: bytes = b"evil", **options: int) -> bytes:
    buffer = io.BytesIO(ARCHIVE)
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of duplicates
        archive.writestr(name, content, **options)
    return buffer.getvalue()


def special(kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("chest_xray/odd")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("archive", "member"),
    [
        (with_member("../evil"), "'../evil'"),
        (with_member("chest_xray/../../evil"), "'chest_xray/../../evil'"),
        (with_member("..\\evil"), r"'..\\evil'"),
        (with_member("__MACOSX/../../evil"), "'__MACOSX/../../evil'"),
        (with_member("\\evil"), r"'\\evil'"),
        (with_member("C:/evil"), "'C:/evil'"),
        (with_member("C:evil"), "'C:evil'"),
        (with_member("."), "'.'"),
        (with_member(special(stat.S_IFLNK), b"/etc"), "'chest_xray/odd' is a link"),
        (with_member(special(stat.S_IFIFO)), "'chest_xray/odd' is a link or a device"),
        (with_member("chest_xray/odd", compress_type=zipfile.ZIP_BZIP2), "'chest_xray/odd' is compressed"),
        (with_member("chest_xray/odd", compress_type=zipfile.ZIP_LZMA), "'chest_xray/odd' is compressed"),
        (with_member("chest_xray/train/NORMAL/0.jpeg"), "'chest_xray/train/NORMAL/0.jpeg' is there twice"),
        (with_member("chest_xray/train/NORMAL"), "chest_xray/train/NORMAL"),
        (with_member("chest_xray/train/NORMAL/0.jpeg/x/y"), "chest_xray/train/NORMAL/0.jpeg"),
    ],
)
def test_a_member_that_could_do_harm_is_refused(root: Path, tmp_path: Path, archive: bytes, member: str) -> None:
    with pytest.raises(DataError, match=re.escape(member)) as caught:
        give(root, archive)
    assert_helpful(caught.value, root)
    assert_nothing_there(root)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_absolute_member_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"'{tmp_path}/evil' would lie outside"):
        give(root, with_member(f"{tmp_path}/evil"))
    assert_nothing_there(root)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["..", ".", "/", "\\", "C:", "a", "train", " ", "\x01", "~"]), min_size=1, max_size=7))
def test_no_name_leads_outside(pieces: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "one" / "two" / "three" / "chest_xray"
        try:
            give(root, with_member("".join(pieces)))
        except DataError:
            assert not root.exists()
        inside = contents(root) if root.exists() else {}
        everything = contents(Path(name))
        everything.pop("one/two/three/.chest_xray.lock", None)
        assert everything == within("one/two/three/chest_xray/", inside)


def damaged(compression: int, position: int) -> bytes:
    """Spoil one byte of the first member, `position` bytes from where its name ends."""
    archive = bytearray(pack(within("chest_xray/"), compression))
    archive[30 + len("chest_xray/" + next(iter(FILES))) + position] ^= 0xFF
    return bytes(archive)


@pytest.mark.parametrize(
    ("compression", "position", "flaw"),
    [
        (zipfile.ZIP_STORED, 3_000, "Bad CRC-32 for file 'chest_xray/train/NORMAL/0.jpeg'"),
        (zipfile.ZIP_DEFLATED, 3_000, ""),  # as the byte will have it
        (zipfile.ZIP_DEFLATED, 0, "while decompressing"),
        (zipfile.ZIP_STORED, -1, "File name in directory"),
    ],
)
def test_a_damaged_archive_is_removed_and_downloaded_anew(
    server: Server, root: Path, compression: int, position: int, flaw: str
) -> None:
    sound, broken = pack(within("chest_xray/"), compression), damaged(compression, position)
    server.script = [whole(broken), whole(sound)]
    with pytest.raises(DataError, match=f"downloaded anew: .*{flaw}") as caught:
        download_chest_xray(root, url=server.url, size=len(broken))
    assert_helpful(caught.value, root)
    assert_nothing_there(root)
    download_chest_xray(root, url=server.url, size=len(sound))
    assert_complete(root)


def flagged(bit: int, name: bytes = b"chest") -> bytes:
    """Set a flag of the first member, in both of its headers."""
    archive = bytearray(ARCHIVE.replace(b"chest", name))
    struct.pack_into("<H", archive, 6, 1 << bit)
    struct.pack_into("<H", archive, archive.index(b"PK\x01\x02") + 8, 1 << bit)
    return bytes(archive)


def misplaced() -> bytes:
    """Let the end of the archive tell a wrong place for its list of members."""
    return ARCHIVE[:-6] + struct.pack("<I", 2 * SIZE) + ARCHIVE[-2:]


def overlong() -> bytes:
    """Let the list of members tell a first member that goes on beyond the end of the archive."""
    archive = bytearray(ARCHIVE)
    struct.pack_into("<II", archive, archive.index(b"PK\x01\x02") + 20, SIZE, SIZE)
    return bytes(archive)


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (b"this is no archive" * 100, "not a zip file"),
        (ARCHIVE[:-1000], "not a zip file"),
        (flagged(bit=0), "encrypted"),
        (flagged(bit=11, name=b"ch\xffst"), "'utf-8' codec"),
        (misplaced(), "downloaded anew: "),  # the words differ between versions of Python
        (overlong(), r"downloaded anew: \w"),
        (with_member("chest_xray/" + "long" * 100), "name too long"),
        (pack({name: content for name, content in FILES.items() if "train" in name}), "no folder with train and test"),
        (pack({"chest_xray/train/0.jpeg": b"", "chest_xray/test": b"a file"}), "no folder with train and test"),
        (pack({"a/train/0.jpeg": b"", "b/test/0.jpeg": b""}), "no folder with train and test"),
        (pack({}), "no folder with train and test"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_another_file_than_the_archive_is_refused(root: Path, archive: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        give(root, archive)
    assert_nothing_there(root)


@pytest.mark.parametrize("members", [1, 50])
def test_an_archive_that_grows_out_of_proportion_is_not_unpacked(root: Path, members: int) -> None:
    zeros = {f"train/{number}": bytes(10_000_000 // members) for number in range(members)}
    with pytest.raises(DataError, match=r"it would unpack to 10,\d+,\d+ bytes"):
        give(root, pack(within("chest_xray/", FILES | zeros), zipfile.ZIP_DEFLATED))
    assert_nothing_there(root)


def test_a_member_that_is_larger_than_it_says_is_refused(root: Path) -> None:
    bomb = pack(within("chest_xray/", FILES | {"train/bomb": bytes(10_000_000)}), zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="chest_xray/train/bomb"):
        give(root, bomb.replace(struct.pack("<I", 10_000_000), struct.pack("<I", 10)))
    assert_nothing_there(root)
