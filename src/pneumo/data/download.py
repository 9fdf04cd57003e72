"""The archive of Kermany et al. 2018, downloaded and unpacked (https://doi.org/10.17632/rscbjbr9sj.2, CC BY 4.0)."""

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
from pneumo.data.archive import CutError, FailureError, RangeError, open_url, unpack
from pneumo.errors import DataError

ARCHIVE_URL = "https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded"
ARCHIVE_BYTES = 1_235_512_464
# Not published by the authors: public projects that verify this archive state it next to its size and address.
ARCHIVE_SHA256 = "13efc055629733dbab07877f8b3c9f81097840dbcdaa326a8542322c2281ce36"
PAGE = "https://data.mendeley.com/datasets/rscbjbr9sj/2"
TRIES = 5  # in a row that bring not a byte more
PAUSE = 1.0  # seconds to wait after a cut; each try that brings nothing doubles it
_log = logging.getLogger(__name__)


def download_chest_xray(
    root: Path, *, url: str = ARCHIVE_URL, size: int = ARCHIVE_BYTES, sha256: str = ARCHIVE_SHA256
) -> None:
    """Fill `root` with the folders train and test, from a ZIP file at `url`, unless they are there.

    Of several processes one downloads and the others wait. What has arrived is kept in `<root>.zip.part` until all is
    unpacked, so that the next call resumes. Size and SHA-256 are checked before anything is unpacked.

    Raises:
        DataError: The archive cannot be downloaded, is not what it should be, or does not fit on the disk.
    """
    root = root.resolve()  # temporary files must lie on the disk that a link leads to
    try:
        if (root / "train").is_dir():
            _remove_leftovers(root)
            return
        root.parent.mkdir(parents=True, exist_ok=True)
        with lock_of(root):
            if not (root / "train").is_dir():
                _fetch(root, url, size, sha256)
    except (FailureError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT):
            reason = f"the disk is full ({error.strerror}); make room, or set data.root=FOLDER on a bigger disk"
        raise DataError(
            f"There are no radiographs in {root}, and they could not be downloaded: {reason}. To do it by hand, "
            f"download the archive from {PAGE}, unpack it, and set data.root=FOLDER to the folder that has train and "
            "test in it; data=synthetic needs no download."
        ) from error


def _remove_leftovers(root: Path) -> None:
    """Remove the archive that a kill has left behind after it was unpacked; where nothing can be changed, it stays."""
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
    shutil.rmtree(unpacking, ignore_errors=True)  # where there is one, a crash left it: the lock is ours
    if root.exists() and (not root.is_dir() or os.path.ismount(root) or any(root.iterdir())):
        raise FailureError("it has no folder train, yet is not an empty folder that could be replaced")
    require_space(root.parent, 2 * size - _length(part))  # the archive and, about as large, what is in it
    _log.info("Downloading %.1f MB of chest X-rays (CC BY 4.0) from %s", size / 1e6, url)
    _download(url, part, size)
    _require_digest(part, sha256)
    _log.info("Unpacking the chest X-rays to %s", root)
    content = unpacking / "content"  # so that `unpacking` stays, and shows what to remove, until the archive is gone
    content.mkdir(parents=True)
    try:
        unpack(part, content)
        # Where an archive nests a copy of itself, the outer folder is the data set.
        folders = (train.parent for train in content.rglob("train") if (train.parent / "test").is_dir())
        folder = min(folders, key=lambda path: (len(path.parts), path), default=None)
        if folder is None:
            raise zipfile.BadZipFile("it has no folder with train and test")
        if root.exists():
            root.rmdir()
        folder.rename(root)
        part.unlink()
    except zipfile.BadZipFile as error:
        part.unlink()
        raise FailureError(f"a bad archive was removed, to be downloaded anew: {error}") from error
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)


def _download(url: str, part: Path, size: int) -> None:
    """Fill `part` up to `size` bytes, over as many connections as it takes."""
    if _length(part) > size:
        part.unlink()
    start = farthest = have = _length(part)
    failures = 0
    with _progress(have, size) as report:
        while have < size:
            cause = CutError("the server closed the connection early")
            try:
                for received in _receive(url, part, size):
                    report(received)
            except CutError as error:
                cause = error
            have = _length(part)
            # Farther than ever, not than before this try: a server that always starts anew would be asked for ever.
            failures = 0 if have > farthest else failures + 1
            farthest = max(have, farthest)
            # URLError itself: no connection came about. Where none ever did, there is nothing to wait for.
            if failures == TRIES or (farthest == start and type(cause.__cause__) is URLError):
                kept = f"; {have:,} of {size:,} bytes are kept in {part}, and the same command goes on from there"
                raise FailureError(f"{cause}{kept if have else ''}") from cause
            if have < size:
                _log.warning("%s; trying again at byte %d of %d", cause, have, size)
                time.sleep(PAUSE * 2**failures)


def _receive(url: str, part: Path, size: int) -> Iterator[int]:
    """Append what one connection sends to `part`; yield its size after each block."""
    have = _length(part)
    try:
        opened = open_url(url, have)
    except RangeError:
        part.unlink(missing_ok=True)
        raise
    with opened as response:
        start, total = _range(response)
        if response.headers.get_content_type() == "text/html":
            raise FailureError("a web page came in place of the archive, as from a network that wants a log-in first")
        if total not in (None, size):
            raise FailureError(f"the server announces {total:,} bytes, but the archive has {size:,}")
        if start not in (0, have):
            part.unlink(missing_ok=True)
            raise CutError("the server sent another range than it was asked for")
        limit = size + (total is None)  # unannounced, only a byte too many tells another file
        with part.open("ab" if start else "wb") as file:
            have = start
            while have < limit:
                try:
                    block = response.read1(min(1 << 20, limit - have))  # read() would lose a block that is cut
                except (OSError, HTTPException) as error:
                    raise CutError(f"the connection was cut ({error})") from error
                if not block:
                    return
                have += len(block)
                if have > size:
                    file.truncate(0)
                    raise FailureError(f"the server sends more than the {size:,} bytes that the archive has")
                file.write(block)
                yield have


def _require_digest(part: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        part.unlink()
        raise FailureError(
            f"what came has the SHA-256 {digest.hexdigest()} instead of {sha256}, so it is not the archive that "
            "this version expects, and was removed"
        )


def _range(response: HTTPResponse) -> tuple[int, int | None]:
    """Return a response's first byte, -1 if that is unclear, and the size of the whole file, if it is known."""
    if response.status != 206:
        return 0, response.length
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    first, total = match.groups() if match else ("-1", "*")
    return int(first), None if total == "*" else int(total)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _progress(have: int, size: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows how many bytes are there: a bar on a terminal, a line for each tenth elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        with Progress("chest X-rays", *columns, console=console) as bar:
            task = bar.add_task("", total=size, completed=have)  # completed: the speed is that of what is new
            yield lambda received: bar.update(task, completed=received)
        return
    tenth = have * 10 // size

    def log(received: int) -> None:
        nonlocal tenth
        if received * 10 // size > tenth:
            tenth = received * 10 // size
            _log.info("Downloaded %d %% of %.1f MB", 10 * tenth, size / 1e6)

    yield log
