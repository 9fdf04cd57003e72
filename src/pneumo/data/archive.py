"""Encrypted downloads, and the extraction of ZIP archives within their folder."""

import shutil
import stat
import zipfile
import zlib
from contextlib import closing
from errno import EEXIST, EINVAL, ENAMETOOLONG, ENOTDIR
from http.client import HTTPException, HTTPMessage, HTTPResponse, InvalidURL
from pathlib import Path, PurePosixPath
from typing import IO, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pneumo.common import __version__
from pneumo.common.files import require_space
from pneumo.common.text import plain, proxy_hint

TIMEOUT = 30.0  # seconds without a byte
_GROWTH = 4  # JPEGs hardly shrink in an archive: one that unpacks to more than so many times its size is not ours
MOST_MEMBERS = 100_000  # seventeen times as many as the study's archive has images
_DAMAGE = (zlib.error, EOFError, RuntimeError, ValueError)  # what zipfile raises for a bad archive, beside BadZipFile
_IMPOSSIBLE = (EEXIST, EINVAL, ENAMETOOLONG, ENOTDIR)  # names and places that cannot be; the disk raises other errors


class FailureError(Exception):
    """Why a download failed: the part of a message that differs."""


class CutError(FailureError):
    """A failure that may pass."""


class RangeError(CutError):
    """The server has no byte at the place that was asked for."""


def open_url(url: str, start: int) -> HTTPResponse:
    """Request what is at an address, from byte `start` on, and return the response.

    Raises:
        FailureError: It must not be used, is malformed, or the server refuses.
        CutError: It might work later.
    """
    headers = {"User-Agent": f"pneumo/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        _require_secure(url, url)
        return cast(HTTPResponse, build_opener(_SecureRedirects).open(Request(url, headers=headers), timeout=TIMEOUT))
    except HTTPError as error:
        error.close()
        kind = CutError if error.code in (408, 429) or error.code >= 500 else FailureError
        kind = RangeError if error.code == 416 else kind
        raise kind(f"the server answered {error.code} {plain(error.reason)}") from error
    except URLError as error:
        raise CutError(f"no connection ({plain(error.reason)}){proxy_hint()}") from error
    except (ValueError, InvalidURL) as error:  # of a redirection, or of a proxy
        raise FailureError(f"an address is malformed ({plain(error)}){proxy_hint()}") from error
    except (OSError, HTTPException) as error:
        raise CutError(f"the connection was cut ({plain(error)}){proxy_hint()}") from error


class _SecureRedirects(HTTPRedirectHandler):
    """Follow a few redirections, encrypted ones alone."""

    max_redirections = 5

    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> HTTPResponse | None:
        """Follow a redirection, and close the connection that it came from, if it leads nowhere, too."""
        with closing(fp):
            followed: HTTPResponse | None = super().http_error_302(req, fp, code, msg, headers)
            return followed

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Check the address first."""
        _require_secure(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_secure(url: str, origin: str) -> None:
    """Raise a FailureError unless an address is encrypted, or is on this machine as its origin is."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_local(url) and _is_local(origin)):
        raise FailureError(f"{plain(url)} is not an https address, and nothing else is trusted")


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack `archive` into `folder`, without `__MACOSX` and `.DS_Store`.

    Raises:
        zipfile.BadZipFile: The archive is damaged, or it has a member that could do harm: outside of `folder`, a link,
            or far larger than it should be. Those are found before anything is written.
        OSError: The disk is full or fails.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = _members(file)
            unpacked = sum(info.file_size for info in members.values())
            if unpacked > _GROWTH * archive.stat().st_size:
                raise zipfile.BadZipFile(f"it would unpack to {unpacked:,} bytes, over {_GROWTH} times its size")
            require_space(folder, unpacked)
            for path, info in members.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                with file.open(info) as source, (folder / path).open("xb") as sink:
                    shutil.copyfileobj(source, sink)
    except _DAMAGE as error:
        raise zipfile.BadZipFile(str(error) or "it is cut off") from error
    except OSError as error:
        if error.errno in _IMPOSSIBLE:
            raise zipfile.BadZipFile(str(error)) from error
        raise


def _members(archive: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    if len(archive.infolist()) > MOST_MEMBERS:
        raise zipfile.BadZipFile(f"it has {len(archive.infolist()):,} members, over {MOST_MEMBERS:,}")
    members: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")  # a separator to Windows
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in name or not path.parts:
            raise zipfile.BadZipFile(f"the member {info.filename!r} would lie outside of the data set")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise zipfile.BadZipFile(f"the member {info.filename!r} is a link or a device")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"the member {info.filename!r} is compressed in an unusual way")
        if name.endswith("/") or "__MACOSX" in path.parts or path.name == ".DS_Store":
            continue
        first = members.setdefault(path, info)
        if (first.CRC, first.file_size) != (info.CRC, info.file_size):
            raise zipfile.BadZipFile(f"the member {info.filename!r} is there twice, with different contents")
    return members
