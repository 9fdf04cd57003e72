"""Encrypted HTTP connections, with failures in words."""

from contextlib import closing
from http.client import HTTPException, HTTPMessage, HTTPResponse, InvalidURL
from typing import IO, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pneumo import __version__
from pneumo.reasons import plain, proxy_hint

TIMEOUT = 30.0  # seconds without a byte


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
