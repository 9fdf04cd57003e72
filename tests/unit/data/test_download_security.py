"""Downloads from hostile servers, through hostile networks and with invalid proxies."""

from pathlib import Path

import pytest
from helpers.archive_server import (
    ARCHIVE,
    NOWHERE,
    Server,
    assert_complete,
    assert_helpful,
    assert_nothing_there,
    digest,
    fetch,
    part_of,
    whole,
)

from pneumo.data import archive
from pneumo.data.download import ARCHIVE_SHA256, ARCHIVE_URL, download_chest_xray
from pneumo.errors import DataError

pytestmark = pytest.mark.usefixtures("quick_downloads")


def test_a_different_archive_of_the_same_size_is_never_unpacked(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumo.data.download.unpack", None)  # not even the central directory is read
    altered = ARCHIVE[:-1] + b"!"
    server.script = [whole(altered)]
    with pytest.raises(DataError, match=f"SHA-256 {digest(altered)} instead of {digest(ARCHIVE)}") as caught:
        fetch(root, server.url)
    assert_helpful(caught.value, root)
    assert_nothing_there(root)


def test_the_published_archive_is_pinned(root: Path) -> None:
    assert ARCHIVE_URL.startswith("https://")
    root.parent.mkdir()
    part_of(root).write_bytes(ARCHIVE)
    with pytest.raises(DataError, match=ARCHIVE_SHA256):
        download_chest_xray(root, url=NOWHERE, size=len(ARCHIVE))


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("ftp://127.0.0.1/archive.zip", "ftp://127.0.0.1/archive.zip is not an https URL"),
        ("file:///etc/passwd", "file:///etc/passwd. is not allowed"),
        ("http://192.0.2.1/archive.zip", "http://192.0.2.1/archive.zip is not an https URL"),
        ("http://127.0.0.1.example.org/", "is not an https URL"),
        ("http://[::1", "malformed"),
        ("https://127.0.0.1:port/", "malformed"),
        ("https://" + "a" * 70 + ".example/", "malformed"),
        ("https://", "no connection|malformed"),
        ("/archive", "status 302"),  # an endless loop
        ("ftp://\x1bred", "is not an https URL"),
    ],
)
def test_only_redirects_to_https_urls_are_followed(
    location: str, reason: str, server: Server, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = [lambda handler: handler.start(302, Location=location)]
    with pytest.raises(DataError, match=reason) as caught:
        fetch(root, server.url)
    assert_helpful(caught.value, root)
    assert str(caught.value).isprintable()
    assert len(server.ranges) <= 6
    assert_nothing_there(root)


@pytest.mark.parametrize("url", ["http://example.org/archive.zip", "ftp://example.org/a", "file:///etc/passwd", "x"])
def test_urls_without_https_are_not_requested(url: str, root: Path) -> None:
    with pytest.raises(DataError, match="is not an https URL"):
        fetch(root, url)


@pytest.mark.parametrize(
    "proxy", ["garbage", "http://:0", "http://127.0.0.1:1", "socks5://127.0.0.1:1", "http://[", "://"]
)
def test_an_invalid_proxy_is_reported(proxy: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "https_proxy", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(DataError, match="a proxy is set by HTTPS_PROXY") as caught:
        fetch(root, "https://127.0.0.1:1/archive.zip")
    assert_helpful(caught.value, root)


def test_archives_with_too_many_members_are_not_unpacked(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 11)
    with pytest.raises(DataError, match="12 members, more than 11"):
        fetch(root, server.url)
    assert_nothing_there(root)
    monkeypatch.setattr(archive, "MAX_MEMBERS", 12)
    fetch(root, server.url)
    assert_complete(root)
