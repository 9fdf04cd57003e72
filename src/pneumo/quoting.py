"""Overrides quoted twice, for Hydra's grammar and for the shell."""

import os
import re
import shlex

# What Hydra reads as text although it has no quotes, unless it looks like a number, a list or a constant.
_PLAIN = re.compile(r"[A-Za-z/.][A-Za-z0-9_/.+@%:-]*")
_CONSTANTS = frozenset({"null", "true", "false", "nan", "inf"})


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
