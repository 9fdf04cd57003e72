"""The configuration that a run recorded, read as plain values without resolvers."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from pneumo.common.plain_data import PlainDataError, read_yaml
from pneumo.errors import ConfigError

# ${epochs}, ${paths.cache_dir}, ${oc.select:learning_rates.sgd,0.003}; all others, such as ${oc.env:HOME}, stay text.
_REFERENCE = re.compile(r"\$\{(?:(?P<key>\w[\w.]*)|oc\.select:(?P<tried>\w[\w.]*),(?P<otherwise>[^${},:]*))\}")
_DEPTH = 16  # references to references
_MOST = 50  # references in one text
_LONGEST = 4_096  # characters; texts that repeat each other grow without end
_KINDS = {str: "text", bool: "true or false", float: "a number", dict: "a group", list: "a list", type(None): "null"}


def read_config(folder: Path) -> dict[str, Any]:
    """Read the .hydra/config.yaml of a run, with interpolations as text; raise a ConfigError if it is damaged."""
    path = folder / ".hydra" / "config.yaml"
    try:
        return read_yaml(path)
    except (FileNotFoundError, PlainDataError) as error:
        raise ConfigError(
            f"{folder} lacks what a run leaves: {path} cannot be read ({error}). Put the file back."
        ) from error


def resolve_references(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with references to its own settings replaced by their values.

    No resolver is called, since the file may come from anywhere: `${oc.env:HOME}` stays as it is.
    """
    resolver = _Resolver(config)
    return {key: resolver.resolve(value) for key, value in config.items()}


def select(config: dict[str, Any], key: str, *kinds: type) -> Any:  # noqa: ANN401 (whatever is recorded)
    """Return the value of a dotted key, which must be of one of several types.

    `float` includes whole numbers, and no number is infinite or NaN.

    Raises:
        ConfigError: There is no such key, or its value is of another type.
    """
    value: Any = config
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            raise ConfigError(
                f"The recorded configuration has no {key}: put .hydra/config.yaml back as the run left it."
            )
        value = value[name]
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and float in kinds) and type(value) not in {*kinds} - {float}:
        wanted = " or ".join(_KINDS[kind] for kind in kinds)
        raise ConfigError(
            f"The recorded configuration has {key}={str(value)[:100]}, which is not {wanted}: put .hydra/config.yaml "
            "back as the run left it."
        )
    return value


class _Resolver:
    """Look references up in one configuration, each once."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.known: dict[str, Any] = {}

    def resolve(self, value: Any, depth: int = 0) -> Any:  # noqa: ANN401 (whatever YAML can hold)
        if isinstance(value, dict):
            return {key: self.resolve(each, depth) for key, each in value.items()}
        if isinstance(value, list):
            return [self.resolve(each, depth) for each in value]
        if not isinstance(value, str) or not 0 < value.count("${") <= _MOST or depth > _DEPTH:
            return value
        if whole := _REFERENCE.fullmatch(value):
            return self._look_up(whole, depth)
        text = _REFERENCE.sub(lambda one: str(self._look_up(one, depth)), value)
        return text if len(text) <= _LONGEST else value

    def _look_up(self, reference: re.Match[str], depth: int) -> Any:  # noqa: ANN401
        """Return what a reference stands for; its text if that is no single value."""
        key = reference["key"] or reference["tried"]
        if key not in self.known:
            self.known[key] = None  # until it is found: a reference to itself stays text
            value: Any = self.config
            for name in key.split("."):
                value = value.get(name) if isinstance(value, dict) else None
            self.known[key] = self.resolve(value, depth + 1) if isinstance(value, str | int | float) else None
        found = self.known[key]
        if found is None:
            return _parse(reference["otherwise"]) if reference["tried"] else reference[0]
        return found


def _parse(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
