"""Escaping and quoting of text for terminals, logs, Markdown, shells and Hydra; probabilities and messages as text."""

import os
import re
import shlex

_ALPHANUMERIC = r"[^\W_]"
_MARKUP = re.compile(
    r"[\\`*<\[\]|~$]"
    rf"|(?<!{_ALPHANUMERIC})_|_(?!{_ALPHANUMERIC})"  # inside a word an underscore is literal
    r"|&(?=#?\w+;)|(?<=\w):(?=//)|(?<=\bwww)\.",
    re.IGNORECASE,
)
_BLOCK = re.compile(r"(?=(?:#+|[-+]+|>)(?:\s|$))|(?<=^\d)(?=[.)]\s)")
_UNQUOTED = re.compile(r"[A-Za-z/.][A-Za-z0-9_/.+@%:-]*")  # Hydra reads such text literally, except constants
_CONSTANTS = frozenset({"null", "true", "false", "nan", "inf"})
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def escape_line(text: str, keep: str = "") -> str:
    r"""Escape unprintable characters, so that text is one line that every terminal prints literally.

    Control characters, line breaks, changes of the writing direction and lone surrogates become Python escapes such as
    `\x1b`. Characters in `keep` are not escaped.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def escape_prose(text: str) -> str:
    """Escape text as `escape_line` does, except for line breaks and non-breaking spaces."""
    return escape_line(text, "\n\xa0")


def escape_paragraph(text: str) -> str:
    """Return text as one line: replace line breaks with spaces and escape the rest as `escape_line` does."""
    return escape_line(re.sub(r"\s*\n\s*", " ", text.strip()), "\xa0")


def escape_markdown(text: str) -> str:
    """Escape text as one line of Markdown that renders it literally, without markup, HTML or links."""
    return _BLOCK.sub(r"\\", _MARKUP.sub(r"\\\g<0>", escape_line(text, "\xa0")), count=1)


def code_span(text: str) -> str:
    """Return text as inline code of Markdown that is also valid in a table."""
    line = escape_line(text).replace("|", r"\|")
    fence = "`" * (_longest_run(line) + 1)
    space = " " if not line or line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{space}{line}{space}{fence}"


def code_block(text: str, language: str) -> str:
    """Return text as a code block of Markdown."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}{fence}"


def count_noun(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 file` or `2,000 files`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def quote_override(override: str) -> str:
    """Quote an override KEY=VALUE for shell and Hydra, so that Hydra reads the value literally.

    A value in brackets remains a list, with quoted items. `~` is expanded, since shells do not expand it here.
    """
    key, _, value = override.partition("=")
    value = os.path.expanduser(value)
    if value.startswith("[") and value.endswith("]"):
        items = (item.strip().strip("'\"") for item in value[1:-1].split(","))
        return shlex.quote(f"{key}=[{','.join(quote_value(item) for item in items)}]")
    unquoted = _UNQUOTED.fullmatch(value) and value.lower() not in _CONSTANTS
    return shlex.quote(f"{key}={value if unquoted else quote_value(value)}")


def quote_value(text: str) -> str:
    """Quote text for Hydra's grammar, in which a backslash is literal unless a quote follows."""
    escaped = re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + ('\\"' if match[2] else ""), text)
    return f'"{escaped}"'


def proxy_hint() -> str:
    """Return a hint on the proxy variables that are set, to append to an error's reason.

    It omits their values, which may contain passwords.
    """
    names = [name for name in _PROXIES if os.environ.get(name)]
    return f"; a proxy is set by {' and '.join(names)}: check or unset it" if names else ""


def install_hint(extra: str) -> str:
    """Return the installation command for one of pneumo's extras, for error messages."""
    return f"pip install 'pneumo[{extra}]', or, in a checkout, pip install -e '.[{extra}]'"


def short_line(text: object, limit: int = 200) -> str:
    """Return text from another program, such as an error of a library, as one short line without control characters."""
    line = " ".join(str(text).split())
    return "".join(character for character in line if character.isprintable())[:limit]


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def format_probability(probability: float) -> str:
    """Format a probability with three digits; only exact values become 0.000 and 1.000."""
    if 0.9995 <= probability < 1:
        return ">0.999"
    return "<0.001" if 0 < probability < 0.0005 else f"{probability:.3f}"
