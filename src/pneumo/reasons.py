"""What libraries and servers give as reasons, in words for users."""

import os

_NAMES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def proxy_hint() -> str:
    """Name the environment variables that set a proxy, to be added to a reason; their values may hold passwords."""
    names = [name for name in _NAMES if os.environ.get(name)]
    return f"; a proxy is set by {' and '.join(names)}: check or unset it" if names else ""


def plain(reason: object, longest: int = 200) -> str:
    """Return what a server or a library gave as a reason, on one line, without control characters."""
    text = " ".join(str(reason).split())
    return "".join(character for character in text if character.isprintable())[:longest]
