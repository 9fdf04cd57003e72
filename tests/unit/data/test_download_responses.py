import logging
import re
import socket
from pathlib import Path

import pytest
from helpers.archive_server import (
    ARCHIVE,
    SIZE,
    Handler,
    Server,
    announced,
    assert_complete,
    assert_helpful,
    assert_nothing_there,
    fetch,
    part_of,
    partial,
    status,
    whole,
)

from pneumo.data import archive
from pneumo.data.download import MAX_FAILURES
from pneumo.errors import DataError

pytestmark = pytest.mark.usefixtures("quick_downloads")


@pytest.mark.parametrize("length", [SIZE - 1, SIZE + 1, 0])
def test_a_wrong_announced_size_is_rejected_before_bytes_are_stored(server: Server, root: Path, length: int) -> None:
    server.script = [announced(length)]
    with pytest.raises(DataError, match=f"{length:,} bytes.* {SIZE:,}"):
        fetch(root, server.url)
    assert len(server.ranges) == 1
    assert_nothing_there(root)


def test_a_wrong_announced_size_keeps_the_partial_file(server: Server, root: Path) -> None:
    server.script = [whole(ARCHIVE + b"!")]
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:100])
    with pytest.raises(DataError, match=rf"announces {SIZE + 1:,} bytes"):
        fetch(root, server.url)
    assert part_of(root).read_bytes() == ARCHIVE[:100]


def test_bytes_beyond_the_announced_size_are_ignored(server: Server, root: Path) -> None:
    server.script = [announced(SIZE, ARCHIVE + b"more")]
    fetch(root, server.url)
    assert_complete(root)


def test_an_unannounced_size_is_accepted(server: Server, root: Path) -> None:
    server.script = [announced(None)]
    fetch(root, server.url)
    assert_complete(root)


def test_an_unknown_total_size_in_a_range_is_accepted(server: Server, root: Path) -> None:
    server.script = [partial(f"bytes 100-{SIZE - 1}/*", ARCHIVE[100:])]
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:100])
    fetch(root, server.url)
    assert_complete(root)


def test_unannounced_extra_bytes_are_rejected_each_time(server: Server, root: Path) -> None:
    server.script = [announced(None, ARCHIVE + b"more")]
    for _ in range(2):
        with pytest.raises(DataError, match=rf"more than the {SIZE:,} bytes"):
            fetch(root, server.url)
        assert part_of(root).stat().st_size == 0
    assert server.ranges == [None, None]


def test_an_unannounced_early_end_is_retried(server: Server, root: Path) -> None:
    server.script = [announced(None, ARCHIVE[:-1])]
    with pytest.raises(DataError, match=rf"{SIZE - 1:,} of {SIZE:,} bytes"):
        fetch(root, server.url)


def test_a_login_page_keeps_the_partial_file(server: Server, root: Path) -> None:
    def portal(handler: Handler) -> None:
        handler.start(Content_Type="text/html; charset=utf-8")
        handler.send(b"<p>Welcome")

    server.script = [portal]
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE[:100])
    with pytest.raises(DataError, match="web page"):
        fetch(root, server.url)
    assert part_of(root).read_bytes() == ARCHIVE[:100]


@pytest.mark.parametrize(("code", "attempts"), [(403, 1), (404, 1), (503, MAX_FAILURES)])
def test_error_statuses_are_reported(server: Server, root: Path, code: int, attempts: int) -> None:
    server.script = [status(code)]
    with pytest.raises(DataError, match=f"the server responded with status {code} ") as caught:
        fetch(root, server.url)
    assert_helpful(caught.value, root)
    assert len(server.ranges) == attempts


def test_without_a_network_there_are_no_retries(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with pytest.raises(DataError, match=r"no connection \(.*refused\)") as caught:
        fetch(root, url)
    assert_helpful(caught.value, root)
    assert "bytes are kept" not in str(caught.value)
    assert caplog.records == []


def test_an_unresponsive_server_times_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "TIMEOUT", 0.02)
    listener = socket.create_server(("127.0.0.1", 0))  # its backlog accepts connections without a response
    with listener, pytest.raises(DataError, match="timed out") as caught:
        fetch(root, f"http://127.0.0.1:{listener.getsockname()[1]}/")
    assert_helpful(caught.value, root)


def test_without_a_terminal_progress_is_logged_in_steps_of_ten_percent(
    server: Server, root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    caplog.set_level(logging.INFO, "pneumo.data.download")
    server.script = [whole(stop=SIZE * n // 20 + 1) for n in range(1, 20)] + [whole()]
    fetch(root, server.url)
    matches = [re.match(r"Downloaded (\d+) % of", record.getMessage()) for record in caplog.records]
    assert [int(match[1]) for match in matches if match] == list(range(10, 101, 10))


def test_a_terminal_shows_a_progress_bar(
    server: Server, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    fetch(root, server.url)
    assert f"{SIZE / 1000:.1f}/{SIZE / 1000:.1f} kB" in capsys.readouterr().err
