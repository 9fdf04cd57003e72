"""Names and other text of unknown origin, escaped for terminals, logs and Markdown."""

import re

_NOT_ALPHANUMERIC = r"[^\W_]"
_MARKUP = re.compile(
    r"[\\`*<\[\]|~$]"
    rf"|(?<!{_NOT_ALPHANUMERIC})_|_(?!{_NOT_ALPHANUMERIC})"  # within words an underscore is itself
    r"|&(?=#?\w+;)|(?<=\w):(?=//)|(?<=\bwww)\.",
    re.IGNORECASE,
)
_BLOCK = re.compile(r"(?=(?:#+|[-+]+|>)(?:\s|$))|(?<=^\d)(?=[.)]\s)")


def escape_line(text: str, keep: str = "") -> str:
    r"""Return text as one line that any terminal prints as it is; all other text stays the same.

    Control characters, line breaks, changes of the writing direction and lone surrogates become escapes of Python,
    such as `\x1b`.

    Args:
        text: Any text.
        keep: Characters that stay, although they cannot be printed.
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


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
