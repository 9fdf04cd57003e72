"""Recorded configuration of a run, read as plain values without resolvers."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from pneumo.common.plain_data import PlainDataError, read_yaml
from pneumo.errors import ConfigError

# Matches ${epochs}, ${paths.cache_dir} and ${oc.select:learning_rates.sgd,0.003}. Others, such as ${oc.env:HOME}, are
# not replaced.
_REFERENCE = re.compile(r"\$\{(?:(?P<key>\w[\w.]*)|oc\.select:(?P<optional>\w[\w.]*),(?P<default>[^${},:]*))\}")
_MAX_DEPTH = 16  # of references to references
_MAX_REFERENCES = 50  # in one text
_MAX_CHARACTERS = 4_096  # nested references could grow exponentially
_TYPE_NAMES = {
    str: "text",
    bool: "true or false",
    float: "a number",
    dict: "a group",
    list: "a list",
    type(None): "null",
}


def read_config(folder: Path) -> dict[str, Any]:
    """Read a run's .hydra/config.yaml, with interpolations as text; raise a ConfigError if it is damaged."""
    path = folder / ".hydra" / "config.yaml"
    try:
        return read_yaml(path)
    except (FileNotFoundError, PlainDataError) as error:
        raise ConfigError(f"The run's configuration {path} cannot be read ({error}). Restore the file.") from error


def resolve_references(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with references to its own settings replaced by their values.

    The file may come from another machine, so no resolver is called: `${oc.env:HOME}` does not change.
    """
    resolver = _Resolver(config)
    return {key: resolver.resolve(value) for key, value in config.items()}


def select(config: dict[str, Any], key: str, *kinds: type) -> Any:  # noqa: ANN401 (any recorded value)
    """Return the value of a dotted key, which must be of one of the given types.

    `float` includes whole numbers. Infinite numbers and NaN are errors.

    Raises:
        ConfigError: The key is missing, or its value is of another type.
    """
    value: Any = config
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            raise ConfigError(
                f"The recorded configuration has no {key}. Restore the run's original .hydra/config.yaml."
            )
        value = value[name]
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and float in kinds) and type(value) not in {*kinds} - {float}:
        expected = " or ".join(_TYPE_NAMES[kind] for kind in kinds)
        raise ConfigError(
            f"The recorded configuration has {key}={str(value)[:100]}, which is not {expected}. Restore the run's "
            "original .hydra/config.yaml."
        )
    return value


class _Resolver:
    """Resolver of the references in one configuration; each is looked up once."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.resolved: dict[str, Any] = {}

    def resolve(self, value: Any, depth: int = 0) -> Any:  # noqa: ANN401 (any YAML value)
        if isinstance(value, dict):
            return {key: self.resolve(each, depth) for key, each in value.items()}
        if isinstance(value, list):
            return [self.resolve(each, depth) for each in value]
        if not isinstance(value, str) or not 0 < value.count("${") <= _MAX_REFERENCES or depth > _MAX_DEPTH:
            return value
        if whole := _REFERENCE.fullmatch(value):
            return self._look_up(whole, depth)
        text = _REFERENCE.sub(lambda one: str(self._look_up(one, depth)), value)
        return text if len(text) <= _MAX_CHARACTERS else value

    def _look_up(self, reference: re.Match[str], depth: int) -> Any:  # noqa: ANN401
        """Return the value of a reference or else its default; without both, its text."""
        key = reference["key"] or reference["optional"]
        if key not in self.resolved:
            self.resolved[key] = None  # so that a reference to itself is not resolved
            value: Any = self.config
            for name in key.split("."):
                value = value.get(name) if isinstance(value, dict) else None
            self.resolved[key] = self.resolve(value, depth + 1) if isinstance(value, str | int | float) else None
        resolved = self.resolved[key]
        if resolved is None:
            return _parse(reference["default"]) if reference["optional"] else reference[0]
        return resolved


def _parse(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
