"""Malicious file names, and checks of outputs that contain them."""

import re

CONTROLS = "\x1b[31m\x1b]0;own\x07\x9b\u202ex\u2028"
NAMES = [
    "=cmd|' /C calc'!A0.png",
    '@SUM(1+1)*cmd|"x".png',
    "+1+cmd.png",
    "-2+3.png",
    "\t=1.png",
    "\r=1.png",
    "<img src=x onerror=alert(1)>.png",
    "`|[x](javascript:alert(1))**b**.png",
    "[/y][bold]:smile:.png",
    "$x^$.png",
    f"{CONTROLS}.png",
    "a\n[2026-01-01 00:00:00,000][pneumo][INFO] forged.png",
]
MARKUP = "x[/y]`|<b>$^$"  # for printable names and parts of a path


def is_harmless(text: str) -> bool:
    """Return whether a terminal prints text unchanged; newlines and non-breaking spaces are allowed."""
    return re.sub("[\n\xa0]", "", text).isprintable()


def formulas(cells: list[str]) -> list[str]:
    """Return the cells that a spreadsheet would evaluate as formulas."""
    number = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?")
    return [cell for cell in cells if cell[:1] in {*"=+-@\t\r"} - {""} and not number.fullmatch(cell)]
