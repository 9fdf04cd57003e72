"""Escaping and quoting of text for terminals, logs, Markdown, shells and Hydra, and hints and reasons in errors."""

import os
import re
import shlex

_ALPHANUMERIC = r"[^\W_]"
_MARKUP = re.compile(
    r"[\\`*<\[\]|~$]"
    rf"|(?<!{_ALPHANUMERIC})_|_(?!{_ALPHANUMERIC})"  # within words an underscore is itself
    r"|&(?=#?\w+;)|(?<=\w):(?=//)|(?<=\bwww)\.",
    re.IGNORECASE,
)
_BLOCK = re.compile(r"(?=(?:#+|[-+]+|>)(?:\s|$))|(?<=^\d)(?=[.)]\s)")
# What Hydra reads as text although it has no quotes, unless it looks like a number, a list or a constant.
_PLAIN = re.compile(r"[A-Za-z/.][A-Za-z0-9_/.+@%:-]*")
_CONSTANTS = frozenset({"null", "true", "false", "nan", "inf"})
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def escape_line(text: str, keep: str = "") -> str:
    r"""Return text as one line that any terminal prints as it is; all other text stays the same.

    Control characters, line breaks, changes of the writing direction and lone surrogates become escapes of Python, such
    as `\x1b`. The characters in `keep` stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def escape_prose(text: str) -> str:
    """Escape text as `escape_line` does, except for line breaks and non-breaking spaces."""
    return escape_line(text, "\n\xa0")


def escape_paragraph(text: str) -> str:
    """Return text as one line: line breaks become spaces, all else is escaped as by `escape_line`."""
    return escape_line(re.sub(r"\s*\n\s*", " ", text.strip()), "\xa0")


def escape_markdown(text: str) -> str:
    """Return text as one line of Markdown that shows it as it is, without markup, HTML or links."""
    return _BLOCK.sub(r"\\", _MARKUP.sub(r"\\\g<0>", escape_line(text, "\xa0")), count=1)


def code_span(text: str) -> str:
    """Return text as code within a line of Markdown, also within a table."""
    line = escape_line(text).replace("|", r"\|")
    fence = "`" * (_longest_run(line) + 1)
    space = " " if not line or line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{space}{line}{space}{fence}"


def code_block(text: str, language: str) -> str:
    """Return text as a block of code in Markdown."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}{fence}"


def quote_override(override: str) -> str:
    """Return an override, KEY=VALUE, as it is typed in a shell for Hydra to read the value as it stands.

    A value in brackets stays a list, of quoted items. `~` becomes the user's home folder, as no shell does it here.
    """
    key, _, value = override.partition("=")
    value = os.path.expanduser(value)
    if value.startswith("[") and value.endswith("]"):
        items = (item.strip().strip("'\"") for item in value[1:-1].split(","))
        return shlex.quote(f"{key}=[{','.join(quote_value(item) for item in items)}]")
    plain = _PLAIN.fullmatch(value) and value.lower() not in _CONSTANTS
    return shlex.quote(f"{key}={value if plain else quote_value(value)}")


def quote_value(text: str) -> str:
    """Quote a text for Hydra's grammar, in which a backslash is itself unless a quote comes after it."""
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text)
    return f'"{escaped}"'


def proxy_hint() -> str:
    """Name the environment variables that set a proxy, to be added to a reason; their values may hold passwords."""
    names = [name for name in _PROXIES if os.environ.get(name)]
    return f"; a proxy is set by {' and '.join(names)}: check or unset it" if names else ""


def install_hint(extra: str) -> str:
    """Return how to install an extra of pneumo, for the error that something of it is not installed."""
    return f"pip install 'pneumo[{extra}]', or, in a checkout, pip install -e '.[{extra}]'"


def plain(reason: object, longest: int = 200) -> str:
    """Return what a server or a library gave as a reason, on one line, without control characters."""
    text = " ".join(str(reason).split())
    return "".join(character for character in text if character.isprintable())[:longest]


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
