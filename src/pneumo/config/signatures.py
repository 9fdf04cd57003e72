"""Checks of configured arguments against the signatures of the configured classes."""

import inspect
import pkgutil
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from os import PathLike
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pneumo.common.text import short_line
from pneumo.config.checks import argument_rules
from pneumo.config.constraints import show
from pneumo.config.fingerprints import current_target
from pneumo.config.overrides import similar_keys
from pneumo.config.schema import HYDRA_KEYS
from pneumo.errors import ConfigError

_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


class TargetType(NamedTuple):
    """Requirements on a group's `_target_`."""

    classes: tuple[type, ...]  # allowed base classes; functions annotated to return one are allowed too
    deferred: tuple[type, ...] = ()  # classes whose first argument is passed later; they require `_partial_=true`
    first_argument: str = ""  # functions with an argument of this name need no annotation: their result is checked
    given: tuple[str, ...] = ()  # arguments that pneumo passes itself


def check_target(key: str, node: Mapping[str, Any], expected: TargetType, settings: Mapping[str, Any]) -> None:
    """Validate a plain, resolved configuration node with a `_target_`, without calling the target.

    Args:
        key: Key of the node.
        node: The node.
        expected: Requirements on the target.
        settings: The whole configuration, whose keys are suggested for unknown keys.

    Raises:
        ConfigError: The target does not exist or has the wrong type, or an argument does not match its signature.
    """
    target = locate(key, node["_target_"])
    known, closed = parameters(target)
    result_type = _return_class(target)
    if result_type is None and expected.first_argument == next(iter(known), None):
        result_type = expected.deferred[0]
    if result_type is None or not issubclass(result_type, expected.classes):
        names = " or ".join(f"{each.__module__}.{each.__qualname__}" for each in expected.classes)
        raise ConfigError(
            f"{key}._target_={node['_target_']} must be {names}, a subclass, or a function that is annotated to return "
            "one. It was not called. Remove the setting, or use such a class."
        )
    deferred = issubclass(result_type, expected.deferred)
    if bool(node.get("_partial_", False)) != deferred:
        rule = "true, since pneumo creates the object later" if deferred else "left out"
        raise ConfigError(f"{key}._partial_={show(node.get('_partial_'))} must be {rule}.")
    given = {*expected.given, *list(known)[: 1 if deferred else 0]}
    ruled, _ = argument_rules(key, node["_target_"])
    for name, value in node.items():
        if name in HYDRA_KEYS:
            continue
        if name in given:
            raise ConfigError(f"{key}.{name}={show(value)} must be left out: pneumo sets it itself.")
        if name not in known and closed:
            raise _unknown(f"{key}.{name}", settings)
        hint = known[name].annotation if name in known else Any
        if name not in ruled and not fits(value, hint):
            default = known[name].default
            example = f", such as its default {show(default)}" if isinstance(default, bool | int | float | str) else ""
            raise ConfigError(f"{key}.{name}={show(value)} must be {_describe(hint)}{example}.")
        _check_nested(f"{key}.{name}", value, hint)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in node and name not in given:
            raise ConfigError(f"{key}.{name} is missing: {node['_target_']} requires it. Set +{key}.{name}=VALUE.")


def parameters(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the keyword parameters of a class or function, and whether these are all that it accepts.

    Annotations are resolved. For `**options` of a class's `__init__`, the parameters of its bases are added as
    optional, since the class may pass them itself.
    """
    known: dict[str, inspect.Parameter] = {}
    makers = [each.__dict__.get("__init__") for each in target.__mro__] if isinstance(target, type) else [target]
    own = next((maker for maker in makers if maker is not None), None)
    for maker in makers:
        if maker is object.__init__:
            return known, maker is own
        if maker is None:
            continue
        try:
            signature, hints = inspect.signature(maker), _hints(maker)
        except (TypeError, ValueError):  # some builtins have no signature
            return known, False
        for name, parameter in list(signature.parameters.items())[isinstance(target, type) :]:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                default = None if maker is not own and parameter.default is parameter.empty else parameter.default
                known.setdefault(name, parameter.replace(annotation=hints.get(name, Any), default=default))
        if all(parameter.kind != parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
            return known, True
    return known, False


def fits(value: Any, hint: Any) -> bool:  # noqa: ANN401 (any YAML value, any annotation)
    """Return whether a plain value matches an annotation; True if that cannot be determined."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is typing.Annotated:
        return fits(value, inner[0])
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return any((type(value), value) == (type(each), each) for each in inner)
    if hint is None:
        return value is None
    nested = isinstance(value, Mapping) and "_target_" in value
    if isinstance(hint, type) and origin is None:
        return hint not in _PLAIN if nested else _fits_class(value, hint)
    if nested or not isinstance(origin, type) or not issubclass(origin, Iterable):
        return True
    if issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return isinstance(value, list) and len(value) == len(inner) and all(map(fits, value, inner))
    return isinstance(value, list) and (not inner or all(fits(item, inner[0]) for item in value))


def _fits_class(value: Any, hint: type) -> bool:  # noqa: ANN401 (any YAML value)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool) and value == value
    if issubclass(hint, PathLike):
        return isinstance(value, str)
    if hint is object or getattr(hint, "_is_protocol", False) or (issubclass(hint, str) and hint is not str):
        return True
    return isinstance(value, hint) or (issubclass(hint, tuple | set | frozenset) and isinstance(value, list))


def _unknown(key: str, settings: Mapping[str, Any]) -> ConfigError:
    similar = [each for each in similar_keys(key, settings) if each.lstrip("+") != key]
    suggestion = f" Did you mean {' or '.join(similar)}?" if similar else ""
    return ConfigError(f"{key} is not a setting, so it would have no effect. Remove it.{suggestion}")


def _check_nested(key: str, value: Any, hint: Any) -> None:  # noqa: ANN401 (any YAML value, any annotation)
    """Validate each `_target_` inside an argument: Hydra instantiates these too, unless they are partial."""
    items = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
    for name, item in items.items():
        _check_nested(f"{key}.{name}", item, Any)
    if "_target_" not in items:
        return
    result_type = _return_class(locate(key, items["_target_"]))
    if items.get("_partial_") is True:
        return
    classes = tuple(each for each in (hint, *get_args(hint)) if isinstance(each, type) and each not in (*_PLAIN, Any))
    if result_type is None or (classes and not issubclass(result_type, classes)):
        raise ConfigError(
            f"{key}._target_={show(items['_target_'])} must be {_describe(hint) if classes else 'a class'}, or a "
            "function that is annotated to return one. It was not called. Remove the setting, or use such a class."
        )


def locate(key: str, path: Any) -> Callable[..., Any]:  # noqa: ANN401 (any YAML value)
    """Import the class or function of a `_target_`."""
    try:
        target = pkgutil.resolve_name(current_target(path))
    except (AttributeError, ImportError, SyntaxError, TypeError, ValueError) as error:
        reason = short_line(error) or type(error).__name__
        raise ConfigError(
            f"{key}._target_={show(path)} cannot be imported ({show(reason)}). Use the full path of a class in an "
            "installed package, such as torch.optim.SGD."
        ) from error
    if not callable(target):
        raise ConfigError(f"{key}._target_={show(path)} must be a class, not {type(target).__name__}.")
    return target  # type: ignore[no-any-return] # resolve_name returns Any


def _return_class(target: Callable[..., Any]) -> type | None:
    """Return the class that a call of the target returns; None if a function has no such annotation."""
    result_type = target if isinstance(target, type) else _hints(target).get("return")
    result_type = get_origin(result_type) or result_type
    return result_type if isinstance(result_type, type) else None


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations that can be resolved, also those whose `typing` or `collections.abc` import is missing."""
    function = inspect.unwrap(target)
    resolved: dict[str, Any] = {}
    names = {**vars(abc), **vars(typing), **getattr(function, "__globals__", {})}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        holder = type("Holder", (), {"__annotations__": {name: annotation}})
        with suppress(NameError, TypeError, AttributeError, SyntaxError):
            resolved |= typing.get_type_hints(holder, names)
    return resolved


def _describe(hint: Any) -> str:  # noqa: ANN401 (any annotation)
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_describe, get_args(hint)))
    if get_origin(hint) is Literal:
        return " or ".join(map(show, get_args(hint)))
    if isinstance(hint, type) and get_origin(hint) is None:
        return _PLAIN.get(hint, hint.__qualname__)
    return "null" if hint is None else str(hint).replace("typing.", "")
