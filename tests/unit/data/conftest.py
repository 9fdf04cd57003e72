"""Fixtures: an archive server and a download folder."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.archive_server import Server

from pneumo.data import download


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def quick_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without delay and without a proxy."""
    monkeypatch.setattr(download, "RETRY_DELAY", 0.0)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chest_xray"
