import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.archive_server import (
    ARCHIVE,
    NOWHERE,
    SIZE,
    Response,
    Server,
    announced,
    assert_complete,
    fetch,
    ignore_range,
    part_of,
    partial,
    reset,
    status,
    unpack_archive,
    whole,
)

from pneumo import __version__
from pneumo.data.download import MAX_FAILURES, download_chest_xray
from pneumo.errors import DataError

pytestmark = pytest.mark.usefixtures("quick_downloads")


def test_the_data_set_is_complete_and_no_other_files_remain(server: Server, root: Path) -> None:
    fetch(root, server.url)
    assert_complete(root)
    assert server.ranges == [None]
    assert server.agents == [f"pneumo/{__version__}"]


def test_a_second_call_sends_no_request(server: Server, root: Path) -> None:
    fetch(root, server.url)
    fetch(root, server.url)
    assert len(server.ranges) == 1


def test_an_existing_data_set_needs_no_writable_parent_folder(root: Path) -> None:
    (root / "train").mkdir(parents=True)
    download_chest_xray(root, url=NOWHERE)
    assert [path.name for path in root.parent.iterdir()] == [root.name]


@pytest.mark.parametrize("received", [1, 12_345, SIZE - 1])
def test_only_the_rest_of_a_partial_file_is_downloaded(server: Server, root: Path, received: int) -> None:
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:received])
    fetch(root, server.url)
    assert_complete(root)
    assert server.ranges == [f"bytes={received}-"]
    assert server.sent == [SIZE - received]


def test_a_complete_partial_file_is_not_downloaded_again(root: Path) -> None:
    unpack_archive(root, ARCHIVE)
    assert_complete(root)


def test_a_partial_file_that_is_too_large_is_downloaded_again(server: Server, root: Path) -> None:
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE + b"more")
    fetch(root, server.url)
    assert_complete(root)
    assert server.ranges == [None]


def test_redirects_keep_the_range(server: Server, root: Path) -> None:
    server.script = [lambda handler: handler.start(302, Location="/elsewhere"), whole()]
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:100])
    fetch(root, server.url)
    assert_complete(root)
    assert server.ranges == ["bytes=100-", "bytes=100-"]


def test_a_download_resumes_after_two_lost_connections(server: Server, root: Path) -> None:
    server.script = [whole(stop=20_000), whole(stop=40_000), whole()]
    fetch(root, server.url)
    assert_complete(root)
    assert server.ranges == [None, "bytes=20000-", "bytes=40000-"]
    assert sum(server.sent) == SIZE


def test_progress_resets_the_number_of_retries(server: Server, root: Path) -> None:
    failures = [whole(stop=0)] * (MAX_FAILURES - 1)
    server.script = [*failures, whole(stop=20_000), *failures, whole(stop=40_000), *failures, whole()]
    fetch(root, server.url)
    assert_complete(root)


def test_a_reset_connection_is_retried(server: Server, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.script = [reset, whole()]
    fetch(root, server.url)
    assert_complete(root)
    assert "reset by peer" in caplog.text


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_temporary_server_errors_are_retried(server: Server, root: Path, code: int) -> None:
    server.script = [status(code), whole(stop=20_000), status(code), whole()]
    fetch(root, server.url)
    assert_complete(root)


def test_a_permanently_lost_connection_keeps_the_partial_file_for_the_next_call(server: Server, root: Path) -> None:
    server.script = [whole(stop=20_000)]
    with pytest.raises(DataError, match=f"20,000 of {SIZE:,} bytes") as caught:
        fetch(root, server.url)
    assert str(part_of(root)) in str(caught.value)
    assert "same command" in str(caught.value)
    assert len(server.ranges) == 1 + MAX_FAILURES
    assert part_of(root).read_bytes() == ARCHIVE[:20_000]
    server.script = [whole()]
    fetch(root, server.url)
    assert_complete(root)
    assert server.sent[-1] == SIZE - 20_000


def test_a_network_that_fails_during_the_download_is_retried(root: Path, caplog: pytest.LogCaptureFixture) -> None:
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
            fetch(root, url)
        served.result()
    assert len(caplog.records) == MAX_FAILURES


def test_a_server_without_ranges_restarts_the_download(server: Server, root: Path) -> None:
    server.script = [ignore_range]
    root.parent.mkdir()
    part_of(root).write_bytes(b"x" * 30_000)
    fetch(root, server.url)
    assert_complete(root)


def test_retries_are_limited_for_a_server_without_ranges_that_closes_connections(server: Server, root: Path) -> None:
    ends = [300, 200, 100] * 20
    server.script = [announced(SIZE, ARCHIVE[:end]) for end in ends]
    with pytest.raises(DataError, match="resumes the download"):
        fetch(root, server.url)
    assert len(server.ranges) == 1 + MAX_FAILURES


@pytest.mark.parametrize(
    "response",
    [
        partial(f"bytes 200-{SIZE - 1}/{SIZE}", ARCHIVE[200:]),
        partial("octets of some kind", ARCHIVE[100:]),
        partial(None, ARCHIVE[100:]),
        status(416),
    ],
)
def test_a_different_range_than_requested_is_not_used(server: Server, root: Path, response: Response) -> None:
    server.script = [response, whole()]
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:100])
    fetch(root, server.url)
    assert_complete(root)
    assert server.ranges == ["bytes=100-", None]


def test_a_range_from_the_start_replaces_the_partial_file(server: Server, root: Path) -> None:
    server.script = [partial(f"bytes 0-{SIZE - 1}/{SIZE}", ARCHIVE)]
    root.parent.mkdir()
    part_of(root).write_bytes(b"x" * 100)
    fetch(root, server.url)
    assert_complete(root)


def test_unrequested_ranges_are_rejected(server: Server, root: Path) -> None:
    server.script = [partial(f"bytes 7-{SIZE - 1}/{SIZE}", ARCHIVE[7:])]
    with pytest.raises(DataError, match="different byte range"):
        fetch(root, server.url)
