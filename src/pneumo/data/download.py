"""Download of the data set of Kermany et al. 2018 (https://doi.org/10.17632/rscbjbr9sj.2, CC BY 4.0)."""

import hashlib
import logging
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, ENOSPC
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import URLError

from filelock import Timeout
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from pneumo.common.files import lock_of, require_space
from pneumo.data.archive import DownloadError, RangeError, TemporaryDownloadError, open_url, unpack
from pneumo.errors import DataError

ARCHIVE_URL = "https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded"
ARCHIVE_BYTES = 1_235_512_464
# Not published by the authors; stated by public projects that verify this archive, together with its size and URL.
ARCHIVE_SHA256 = "13efc055629733dbab07877f8b3c9f81097840dbcdaa326a8542322c2281ce36"
DATASET_PAGE = "https://data.mendeley.com/datasets/rscbjbr9sj/2"
MAX_FAILURES = 5  # consecutive attempts without progress
RETRY_DELAY = 1.0  # seconds before a retry; doubled after each attempt without progress
_log = logging.getLogger(__name__)


def download_chest_xray(
    root: Path, *, url: str = ARCHIVE_URL, size: int = ARCHIVE_BYTES, sha256: str = ARCHIVE_SHA256
) -> None:
    """Download a ZIP file from `url` and extract its folders train and test to `root`, unless train exists there.

    If several processes call this, one downloads and the others wait. Downloaded bytes are kept in `<root>.zip.part`
    until the archive is unpacked, so the next call resumes. Size and SHA-256 are checked before unpacking.

    Raises:
        DataError: The archive cannot be downloaded, is not the expected one, or does not fit on the disk.
    """
    root = root.resolve()  # temporary files must be on the same disk as the target of a link
    try:
        if (root / "train").is_dir():
            _remove_leftovers(root)
            return
        root.parent.mkdir(parents=True, exist_ok=True)
        with lock_of(root):
            if not (root / "train").is_dir():
                _fetch(root, url, size, sha256)
    except (DownloadError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT):
            reason = f"the disk is full ({error.strerror}); free space, or set data.root=FOLDER on a larger disk"
        raise DataError(
            f"{root} has no radiographs, and downloading them failed: {reason}. Download the archive manually from "
            f"{DATASET_PAGE}, unpack it, and set data.root=FOLDER to the folder with train/ and test/; or use "
            "data=synthetic, which needs no download."
        ) from error


def _remove_leftovers(root: Path) -> None:
    """Remove the archive if a process was killed after unpacking it; skip this if files are read-only or locked."""
    part, unpacking = _temporaries(root)
    if unpacking.is_dir():
        with suppress(OSError, Timeout), lock_of(root).acquire(timeout=0):
            if unpacking.is_dir():
                part.unlink(missing_ok=True)
                shutil.rmtree(unpacking)


def _temporaries(root: Path) -> tuple[Path, Path]:
    return root.with_name(f"{root.name}.zip.part"), root.with_name(f".{root.name}.unpacking")


def _fetch(root: Path, url: str, size: int, sha256: str) -> None:
    part, unpacking = _temporaries(root)
    shutil.rmtree(unpacking, ignore_errors=True)  # left by a crash, since this process holds the lock
    if root.exists() and (not root.is_dir() or os.path.ismount(root) or any(root.iterdir())):
        raise DownloadError("it has no train/ folder, and only an empty folder can be replaced")
    require_space(root.parent, 2 * size - _length(part))  # for the archive and its content, which is about as large
    _log.info("Downloading %.1f MB of chest X-rays (CC BY 4.0) from %s", size / 1e6, url)
    _download(url, part, size)
    _require_digest(part, sha256)
    _log.info("Unpacking the chest X-rays to %s", root)
    content = unpacking / "content"  # while `unpacking` exists, `_remove_leftovers` removes the archive
    content.mkdir(parents=True)
    try:
        unpack(part, content)
        # If the archive contains nested copies of the data set, the outermost one is used.
        folders = (train.parent for train in content.rglob("train") if (train.parent / "test").is_dir())
        folder = min(folders, key=lambda path: (len(path.parts), path), default=None)
        if folder is None:
            raise zipfile.BadZipFile("it has no folder with train/ and test/")
        if root.exists():
            root.rmdir()
        folder.rename(root)
        part.unlink()
    except zipfile.BadZipFile as error:
        part.unlink()
        raise DownloadError(
            f"the archive is invalid and was removed, so that the next run downloads it again: {error}"
        ) from error
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)


def _download(url: str, part: Path, size: int) -> None:
    """Download to `part` until it has `size` bytes, over several connections if necessary."""
    if _length(part) > size:
        part.unlink()
    start = maximum = position = _length(part)
    failures = 0
    with _progress(position, size) as report:
        while position < size:
            cause = TemporaryDownloadError("the server closed the connection early")
            try:
                for received in _receive(url, part, size):
                    report(received)
            except TemporaryDownloadError as error:
                cause = error
            position = _length(part)
            # Compare with the maximum of all attempts: a server that always restarts would cause endless retries.
            failures = 0 if position > maximum else failures + 1
            maximum = max(position, maximum)
            # URLError itself means that no connection was established. If none ever was, do not retry.
            if failures == MAX_FAILURES or (maximum == start and type(cause.__cause__) is URLError):
                note = f"; {position:,} of {size:,} bytes are kept in {part}, and the same command resumes the download"
                raise DownloadError(f"{cause}{note if position else ''}") from cause
            if position < size:
                _log.warning("%s; retrying from byte %d of %d", cause, position, size)
                time.sleep(RETRY_DELAY * 2**failures)


def _receive(url: str, part: Path, size: int) -> Iterator[int]:
    """Append the data from one connection to `part`; yield the size of `part` after each block."""
    position = _length(part)
    try:
        opened = open_url(url, position)
    except RangeError:
        part.unlink(missing_ok=True)
        raise
    with opened as response:
        start, total = _range(response)
        if response.headers.get_content_type() == "text/html":
            raise DownloadError("the server sent a web page instead of the archive; the network may require a login")
        if total not in (None, size):
            raise DownloadError(f"the server announces {total:,} bytes, but the archive has {size:,} bytes")
        if start not in (0, position):
            part.unlink(missing_ok=True)
            raise TemporaryDownloadError("the server sent a different byte range than requested")
        limit = size + (total is None)  # without an announced size, one extra byte reveals a different file
        with part.open("ab" if start else "wb") as file:
            position = start
            while position < limit:
                try:
                    block = response.read1(min(1 << 20, limit - position))  # read() would discard an incomplete block
                except (OSError, HTTPException) as error:
                    raise TemporaryDownloadError(f"the connection was lost ({error})") from error
                if not block:
                    return
                position += len(block)
                if position > size:
                    file.truncate(0)
                    raise DownloadError(f"the server sent more than the {size:,} bytes of the archive")
                file.write(block)
                yield position


def _require_digest(part: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        part.unlink()
        raise DownloadError(
            f"the downloaded file has the SHA-256 {digest.hexdigest()} instead of {sha256}, so it is not the expected "
            "archive and was removed"
        )


def _range(response: HTTPResponse) -> tuple[int, int | None]:
    """Return the position of a response's first byte, or -1 if unknown, and the total file size if known."""
    if response.status != 206:
        return 0, response.length
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    first, total = match.groups() if match else ("-1", "*")
    return int(first), None if total == "*" else int(total)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _progress(position: int, size: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows the received bytes: a bar on terminals, otherwise a log line for each tenth."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        with Progress("Chest X-rays", *columns, console=console) as bar:
            task = bar.add_task("", total=size, completed=position)  # `completed` excludes earlier bytes from the speed
            yield lambda received: bar.update(task, completed=received)
        return
    tenth = position * 10 // size

    def log(received: int) -> None:
        nonlocal tenth
        if received * 10 // size > tenth:
            tenth = received * 10 // size
            _log.info("Downloaded %d %% of %.1f MB", 10 * tenth, size / 1e6)

    yield log
