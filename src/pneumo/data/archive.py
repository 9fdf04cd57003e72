"""HTTPS downloads and safe extraction of ZIP archives."""

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
from pneumo.common.text import proxy_hint, short_line

TIMEOUT = 30.0  # seconds without data
_MAX_EXPANSION = 4  # maximum ratio of unpacked to packed size; JPEGs hardly compress, so a higher ratio is suspicious
MAX_MEMBERS = 100_000  # the archive of Kermany et al. has about 5,900 images
_ZIP_ERRORS = (zlib.error, EOFError, RuntimeError, ValueError)  # raised by zipfile in addition to BadZipFile
_INVALID_PATH = (EEXIST, EINVAL, ENAMETOOLONG, ENOTDIR)  # invalid member paths; disk failures have other codes


class DownloadError(Exception):
    """Reason for a failed download, to be embedded in a longer message."""


class TemporaryDownloadError(DownloadError):
    """Temporary failure, for which a retry may succeed."""


class RangeError(TemporaryDownloadError):
    """Requested byte range that the server cannot satisfy."""


def open_url(url: str, start: int) -> HTTPResponse:
    """Open a URL, starting at byte `start`, and return the response.

    Raises:
        DownloadError: The URL is not allowed or malformed, or the server rejects the request.
        TemporaryDownloadError: The failure may be temporary.
    """
    headers = {"User-Agent": f"pneumo/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        _require_secure(url, url)
        return cast(HTTPResponse, build_opener(_SecureRedirects).open(Request(url, headers=headers), timeout=TIMEOUT))
    except HTTPError as error:
        error.close()
        error_class = TemporaryDownloadError if error.code in (408, 429) or error.code >= 500 else DownloadError
        error_class = RangeError if error.code == 416 else error_class
        raise error_class(f"the server responded with status {error.code} {short_line(error.reason)}") from error
    except URLError as error:
        raise TemporaryDownloadError(f"no connection ({short_line(error.reason)}){proxy_hint()}") from error
    except (ValueError, InvalidURL) as error:  # the URL of a redirect or of a proxy
        raise DownloadError(f"a URL is malformed ({short_line(error)}){proxy_hint()}") from error
    except (OSError, HTTPException) as error:
        raise TemporaryDownloadError(f"the connection was lost ({short_line(error)}){proxy_hint()}") from error


class _SecureRedirects(HTTPRedirectHandler):
    """Handler that follows a limited number of HTTPS redirects."""

    max_redirections = 5

    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> HTTPResponse | None:
        """Follow a redirect and close the original connection, even if the redirect fails."""
        with closing(fp):
            followed: HTTPResponse | None = super().http_error_302(req, fp, code, msg, headers)
            return followed

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Check the new URL before it is requested."""
        _require_secure(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_secure(url: str, origin: str) -> None:
    """Raise a DownloadError unless a URL uses HTTPS, or the URL and the one that led to it are on this machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_local(url) and _is_local(origin)):
        raise DownloadError(f"{short_line(url)} is not an https URL, and other protocols are not allowed")


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


def unpack(archive: Path, folder: Path) -> None:
    """Extract `archive` to `folder`, except `__MACOSX` and `.DS_Store`.

    Raises:
        zipfile.BadZipFile: The archive is damaged or unsafe. Members outside of `folder`, links and excessive sizes are
            detected before anything is written.
        OSError: The disk is full or fails.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = _members(file)
            unpacked = sum(info.file_size for info in members.values())
            if unpacked > _MAX_EXPANSION * archive.stat().st_size:
                raise zipfile.BadZipFile(
                    f"it would unpack to {unpacked:,} bytes, more than {_MAX_EXPANSION} times its size"
                )
            require_space(folder, unpacked)
            for path, info in members.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                with file.open(info) as source, (folder / path).open("xb") as sink:
                    shutil.copyfileobj(source, sink)
    except _ZIP_ERRORS as error:
        raise zipfile.BadZipFile(str(error) or "it is truncated") from error
    except OSError as error:
        if error.errno in _INVALID_PATH:
            raise zipfile.BadZipFile(str(error)) from error
        raise


def _members(archive: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    if len(archive.infolist()) > MAX_MEMBERS:
        raise zipfile.BadZipFile(f"it has {len(archive.infolist()):,} members, more than {MAX_MEMBERS:,}")
    members: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")  # a separator on Windows
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in name or not path.parts:
            raise zipfile.BadZipFile(f"the member {info.filename!r} would be extracted outside of the data set folder")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise zipfile.BadZipFile(f"the member {info.filename!r} is a link or a device")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"the member {info.filename!r} is compressed with an unsupported method")
        if name.endswith("/") or "__MACOSX" in path.parts or path.name == ".DS_Store":
            continue
        first = members.setdefault(path, info)
        if (first.CRC, first.file_size) != (info.CRC, info.file_size):
            raise zipfile.BadZipFile(f"the member {info.filename!r} occurs twice with different contents")
    return members
