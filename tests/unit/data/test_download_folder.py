import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.archive_server import (
    ARCHIVE,
    FILES,
    NOWHERE,
    SIZE,
    Handler,
    Response,
    Server,
    assert_complete,
    assert_helpful,
    assert_nothing_there,
    contents,
    digest,
    fetch,
    pack,
    part_of,
    unpack_archive,
    whole,
    within,
)

from pneumo.data import download
from pneumo.data.download import download_chest_xray
from pneumo.errors import DataError

pytestmark = pytest.mark.usefixtures("quick_downloads")


def test_an_empty_folder_is_replaced(server: Server, root: Path) -> None:
    root.mkdir(parents=True)
    fetch(root, server.url)
    assert_complete(root)


def test_a_link_to_an_empty_folder_leads_to_the_data(server: Server, root: Path, tmp_path: Path) -> None:
    target = tmp_path / "big disk" / "x-rays"
    target.mkdir(parents=True)
    root.parent.mkdir()
    root.symlink_to(target)
    fetch(root, server.url)
    assert root.is_symlink()
    assert_complete(target)


def test_other_files_in_the_folder_are_kept(root: Path) -> None:
    (root / "test").mkdir(parents=True)
    (root / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"no train/ folder") as caught:
        download_chest_xray(root, url=NOWHERE)
    assert_helpful(caught.value, root)
    assert contents(root) == {"notes.txt": b"mine"}


def test_a_mount_point_is_rejected_before_the_download(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir(parents=True)
    monkeypatch.setattr(os.path, "ismount", lambda path: path == root)
    with pytest.raises(DataError, match=r"no train/ folder"):
        download_chest_xray(root, url=NOWHERE)


def test_a_folder_that_cannot_be_created_is_reported(root: Path) -> None:
    root.parent.write_text("a file")
    with pytest.raises(DataError, match=re.escape(str(root.parent))) as caught:
        download_chest_xray(root, url=NOWHERE)
    assert_helpful(caught.value, root)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_reported_with_a_fix(server: Server, root: Path) -> None:
    root.parent.mkdir()
    part_of(root).symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"disk is full \(No space") as caught:
        fetch(root, server.url)
    assert_helpful(caught.value, root)


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2 * free, free, free))


def test_insufficient_disk_space_is_reported_before_the_download(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 2 * SIZE - 1)
    with pytest.raises(DataError, match=f"{2 * SIZE:,} bytes .* {2 * SIZE - 1:,} are free"):
        fetch(root, server.url)
    assert server.ranges == []
    with_free(monkeypatch, 2 * SIZE)
    fetch(root, server.url)
    assert_complete(root)


def test_insufficient_disk_space_for_unpacking_keeps_the_archive(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = within("chest_xray/", {**FILES, "train/zeros": bytes(100_000)})
    archive = pack(files, zipfile.ZIP_DEFLATED)
    unpacked = sum(map(len, files.values()))
    assert len(archive) < unpacked
    with_free(monkeypatch, unpacked - 1)
    with pytest.raises(DataError, match=rf"{unpacked:,} bytes are needed"):
        unpack_archive(root, archive)
    assert_nothing_there(root, part_of(root))


def test_leftovers_of_a_crash_are_replaced(server: Server, root: Path) -> None:
    stale = root.with_name(f".{root.name}.unpacking") / "chest_xray" / "train" / "NORMAL"
    stale.mkdir(parents=True)
    (stale / "0.jpeg").write_bytes(b"half")
    part_of(root).write_bytes(ARCHIVE[:1000])
    fetch(root, server.url)
    assert_complete(root)


def gated(server: Server) -> Response:
    """Delay the first response, so that a second request would arrive if there were no lock."""
    second = threading.Event()

    def respond(handler: Handler) -> None:
        if len(server.ranges) > 1:
            second.set()
        second.wait(0.5)
        whole()(handler)

    return respond


def test_only_one_of_two_threads_downloads(server: Server, root: Path) -> None:
    server.script = [gated(server)]
    barrier = threading.Barrier(2)

    def run() -> None:
        barrier.wait()
        fetch(root, server.url)

    with ThreadPoolExecutor(2) as pool:
        for result in [pool.submit(run), pool.submit(run)]:
            result.result()
    assert len(server.ranges) == 1
    assert_complete(root)


def test_only_one_of_two_processes_downloads(server: Server, root: Path) -> None:
    server.script = [gated(server)]
    code = (  # run by path: importing the package would import torch, which takes seconds
        "import runpy, sys; from pathlib import Path; get = runpy.run_path(sys.argv[1])['download_chest_xray']; "
        "get(Path(sys.argv[2]), url=sys.argv[3], size=int(sys.argv[4]), sha256=sys.argv[5])"
    )
    command = [sys.executable, "-c", code, download.__file__, str(root), server.url, str(SIZE), digest(ARCHIVE)]
    with subprocess.Popen(command) as one, subprocess.Popen(command) as two:
        assert (one.wait(), two.wait()) == (0, 0)
    assert len(server.ranges) == 1
    assert_complete(root)
