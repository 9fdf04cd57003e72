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
    always_all,
    announced,
    assert_complete,
    fetch,
    part_of,
    partial,
    reset,
    status,
    unpack_archive,
    whole,
)

from pneumo import __version__
from pneumo.data.download import TRIES, download_chest_xray
from pneumo.errors import DataError

pytestmark = pytest.mark.usefixtures("quick_downloads")


def test_the_folders_are_at_root_and_nothing_else_is_left(server: Server, root: Path) -> None:
    fetch(root, server.url)
    assert_complete(root)
    assert server.ranges == [None]
    assert server.agents == [f"pneumo/{__version__}"]


def test_a_second_call_asks_nobody(server: Server, root: Path) -> None:
    fetch(root, server.url)
    fetch(root, server.url)
    assert len(server.ranges) == 1


def test_an_existing_data_set_needs_no_writable_place_beside_it(root: Path) -> None:
    (root / "train").mkdir(parents=True)
    download_chest_xray(root, url=NOWHERE)
    assert [path.name for path in root.parent.iterdir()] == [root.name]


@pytest.mark.parametrize("have", [1, 12_345, SIZE - 1])
def test_a_partial_file_is_completed_by_the_rest_alone(server: Server, root: Path, have: int) -> None:
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:have])
    fetch(root, server.url)
    assert_complete(root)
    assert server.ranges == [f"bytes={have}-"]
    assert server.sent == [SIZE - have]


def test_a_complete_partial_file_is_not_downloaded_again(root: Path) -> None:
    unpack_archive(root, ARCHIVE)
    assert_complete(root)


def test_a_partial_file_that_is_too_large_is_downloaded_anew(server: Server, root: Path) -> None:
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE + b"more")
    fetch(root, server.url)
    assert_complete(root)
    assert server.ranges == [None]


def test_a_redirection_keeps_the_range(server: Server, root: Path) -> None:
    server.script = [lambda handler: handler.start(302, Location="/elsewhere"), whole()]
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:100])
    fetch(root, server.url)
    assert_complete(root)
    assert server.ranges == ["bytes=100-", "bytes=100-"]


def test_a_connection_that_is_cut_twice_goes_on_each_time(server: Server, root: Path) -> None:
    server.script = [whole(stop=20_000), whole(stop=40_000), whole()]
    fetch(root, server.url)
    assert_complete(root)
    assert server.ranges == [None, "bytes=20000-", "bytes=40000-"]
    assert sum(server.sent) == SIZE


def test_progress_gives_back_all_retries(server: Server, root: Path) -> None:
    silent = [whole(stop=0)] * (TRIES - 1)
    server.script = [*silent, whole(stop=20_000), *silent, whole(stop=40_000), *silent, whole()]
    fetch(root, server.url)
    assert_complete(root)


def test_a_connection_that_is_reset_is_tried_again(
    server: Server, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.script = [reset, whole()]
    fetch(root, server.url)
    assert_complete(root)
    assert "reset by peer" in caplog.text


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_server_in_trouble_is_asked_again(server: Server, root: Path, code: int) -> None:
    server.script = [status(code), whole(stop=20_000), status(code), whole()]
    fetch(root, server.url)
    assert_complete(root)


def test_a_connection_that_is_cut_for_ever_keeps_what_came_and_the_next_call_goes_on(
    server: Server, root: Path
) -> None:
    server.script = [whole(stop=20_000)]
    with pytest.raises(DataError, match=f"20,000 of {SIZE:,} bytes") as caught:
        fetch(root, server.url)
    assert str(part_of(root)) in str(caught.value)
    assert "same command" in str(caught.value)
    assert len(server.ranges) == 1 + TRIES
    assert part_of(root).read_bytes() == ARCHIVE[:20_000]
    server.script = [whole()]
    fetch(root, server.url)
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
            fetch(root, url)
        served.result()
    assert len(caplog.records) == TRIES


def test_a_server_without_ranges_is_asked_for_all(server: Server, root: Path) -> None:
    server.script = [always_all]
    root.parent.mkdir()
    part_of(root).write_bytes(b"x" * 30_000)
    fetch(root, server.url)
    assert_complete(root)


def test_a_server_without_ranges_that_cuts_at_random_is_not_asked_for_ever(server: Server, root: Path) -> None:
    ends = [300, 200, 100] * 20
    server.script = [announced(SIZE, ARCHIVE[:end]) for end in ends]
    with pytest.raises(DataError, match="goes on from there"):
        fetch(root, server.url)
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
def test_another_range_than_the_one_asked_for_is_not_used(server: Server, root: Path, answer: Response) -> None:
    server.script = [answer, whole()]
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:100])
    fetch(root, server.url)
    assert_complete(root)
    assert server.ranges == ["bytes=100-", None]


def test_a_range_from_the_start_replaces_what_was_there(server: Server, root: Path) -> None:
    server.script = [partial(f"bytes 0-{SIZE - 1}/{SIZE}", ARCHIVE)]
    root.parent.mkdir()
    part_of(root).write_bytes(b"x" * 100)
    fetch(root, server.url)
    assert_complete(root)


def test_ranges_alone_that_nobody_asked_for_are_refused(server: Server, root: Path) -> None:
    server.script = [partial(f"bytes 7-{SIZE - 1}/{SIZE}", ARCHIVE[7:])]
    with pytest.raises(DataError, match="another range"):
        fetch(root, server.url)
