"""Checks of a configuration's arguments against the signatures of the classes that it names."""

import inspect
import pkgutil
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from os import PathLike
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pneumo.common.text import plain
from pneumo.config.checks import rules
from pneumo.config.constraints import show
from pneumo.config.fingerprints import present_target
from pneumo.config.overrides import similar_keys
from pneumo.config.schema import SPECIAL
from pneumo.errors import ConfigError

_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


class Kind(NamedTuple):
    """What a group's `_target_` has to be."""

    classes: tuple[type, ...]  # it is a subclass of one, or a function that is annotated to return one
    deferred: tuple[type, ...] = ()  # of these, those whose first argument is given later: `_partial_` must be true
    first: str = ""  # that argument's name; a function that has it needs no annotation, since what it returns is tried
    given: tuple[str, ...] = ()  # arguments that pneumo gives itself


def check_target(key: str, node: Mapping[str, Any], kind: Kind, settings: Mapping[str, Any]) -> None:
    """Check a plain, resolved node of the configuration that names a class, without calling anything.

    The keys of the whole configuration are suggested for unknown ones.

    Raises:
        ConfigError: The class does not exist or is of another kind, or an argument does not fit it.
    """
    target = locate(key, node["_target_"])
    known, closed = parameters(target)
    made = _made_by(target)
    if made is None and kind.first == next(iter(known), None):
        made = kind.deferred[0]
    if made is None or not issubclass(made, kind.classes):
        names = " or ".join(f"{each.__module__}.{each.__qualname__}" for each in kind.classes)
        raise ConfigError(
            f"{key}._target_={node['_target_']} must be {names}, a subclass, or a function that is annotated to return "
            "one. It was not called. Leave the setting out, or name such a class."
        )
    deferred = issubclass(made, kind.deferred)
    if bool(node.get("_partial_", False)) != deferred:
        rule = "true, since pneumo makes the object later" if deferred else "left out"
        raise ConfigError(f"{key}._partial_={show(node.get('_partial_'))} must be {rule}.")
    given = {*kind.given, *list(known)[: 1 if deferred else 0]}
    ruled, _ = rules(key, node["_target_"])
    for name, value in node.items():
        if name in SPECIAL:
            continue
        if name in given:
            raise ConfigError(f"{key}.{name}={show(value)} must be left out: pneumo gives this argument itself.")
        if name not in known and closed:
            raise _unknown(f"{key}.{name}", settings)
        hint = known[name].annotation if name in known else Any
        if name not in ruled and not fits(value, hint):
            default = known[name].default
            like = f", such as its default {show(default)}" if isinstance(default, bool | int | float | str) else ""
            raise ConfigError(f"{key}.{name}={show(value)} must be {_describe(hint)}{like}.")
        _check_nested(f"{key}.{name}", value, hint)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in node and name not in given:
            raise ConfigError(f"{key}.{name} is missing: {node['_target_']} needs it. Add +{key}.{name}=VALUE.")


def parameters(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return what a class or function can be given by name, with resolved annotations, and whether that is all.

    Further arguments (`**options`) of a class's `__init__` are those of its bases, as far as these have any. Whether it
    gives them itself is unknown, so none of them is required.
    """
    found: dict[str, inspect.Parameter] = {}
    makers = [each.__dict__.get("__init__") for each in target.__mro__] if isinstance(target, type) else [target]
    own = next((maker for maker in makers if maker is not None), None)
    for maker in makers:
        if maker is object.__init__:
            return found, maker is own
        if maker is None:
            continue
        try:
            signature, hints = inspect.signature(maker), _hints(maker)
        except (TypeError, ValueError):  # of a builtin
            return found, False
        for name, parameter in list(signature.parameters.items())[isinstance(target, type) :]:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                default = None if maker is not own and parameter.default is parameter.empty else parameter.default
                found.setdefault(name, parameter.replace(annotation=hints.get(name, Any), default=default))
        if all(parameter.kind != parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
            return found, True
    return found, False


def fits(value: Any, hint: Any) -> bool:  # noqa: ANN401 (anything that YAML gives, and any annotation)
    """Return whether a plain value may be given where an annotation stands; where that is unclear, it may."""
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
    made = isinstance(value, Mapping) and "_target_" in value
    if isinstance(hint, type) and origin is None:
        return hint not in _PLAIN if made else _fits_class(value, hint)
    if made or not isinstance(origin, type) or not issubclass(origin, Iterable):
        return True
    if issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return isinstance(value, list) and len(value) == len(inner) and all(map(fits, value, inner))
    return isinstance(value, list) and (not inner or all(fits(item, inner[0]) for item in value))


def _fits_class(value: Any, hint: type) -> bool:  # noqa: ANN401 (anything that YAML gives)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool) and value == value
    if issubclass(hint, PathLike):
        return isinstance(value, str)
    if hint is object or getattr(hint, "_is_protocol", False) or (issubclass(hint, str) and hint is not str):
        return True
    return isinstance(value, hint) or (issubclass(hint, tuple | set | frozenset) and isinstance(value, list))


def _unknown(key: str, settings: Mapping[str, Any]) -> ConfigError:
    similar = [each for each in similar_keys(key, settings) if each.lstrip("+") != key]
    meant = f" Did you mean {' or '.join(similar)}?" if similar else ""
    return ConfigError(f"{key} is no setting, so it would have no effect. Leave it out.{meant}")


def _check_nested(key: str, value: Any, hint: Any) -> None:  # noqa: ANN401 (anything that YAML gives, any annotation)
    """Check classes that are named inside of an argument: Hydra calls these too, unless they are partial."""
    items = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
    for name, item in items.items():
        _check_nested(f"{key}.{name}", item, Any)
    if "_target_" not in items:
        return
    made = _made_by(locate(key, items["_target_"]))
    if items.get("_partial_") is True:
        return
    classes = tuple(each for each in (hint, *get_args(hint)) if isinstance(each, type) and each not in (*_PLAIN, Any))
    if made is None or (classes and not issubclass(made, classes)):
        raise ConfigError(
            f"{key}._target_={show(items['_target_'])} must be {_describe(hint) if classes else 'a class'}, or a "
            "function that is annotated to return one. It was not called. Leave the setting out, or name such a class."
        )


def locate(key: str, path: Any) -> Callable[..., Any]:  # noqa: ANN401 (anything that YAML gives)
    """Import the class or function that a `_target_` names."""
    try:
        found = pkgutil.resolve_name(present_target(path))
    except (AttributeError, ImportError, SyntaxError, TypeError, ValueError) as error:
        reason = plain(error) or type(error).__name__
        raise ConfigError(
            f"{key}._target_={show(path)} cannot be imported ({show(reason)}): name a class by its whole path, such as "
            "torch.optim.SGD, of a package that is installed."
        ) from error
    if not callable(found):
        raise ConfigError(f"{key}._target_={show(path)} must be a class, not {type(found).__name__}.")
    return found  # type: ignore[no-any-return] # as it was found


def _made_by(target: Callable[..., Any]) -> type | None:
    """Return the class of what a class or function returns; None if a function is not annotated with one."""
    made = target if isinstance(target, type) else _hints(target).get("return")
    made = get_origin(made) or made
    return made if isinstance(made, type) else None


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function that can be resolved, also of names that only type checkers import."""
    function = inspect.unwrap(target)
    found: dict[str, Any] = {}
    names = {**vars(abc), **vars(typing), **getattr(function, "__globals__", {})}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        holder = type("Holder", (), {"__annotations__": {name: annotation}})
        with suppress(NameError, TypeError, AttributeError, SyntaxError):
            found |= typing.get_type_hints(holder, names)
    return found


def _describe(hint: Any) -> str:  # noqa: ANN401 (any annotation)
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_describe, get_args(hint)))
    if get_origin(hint) is Literal:
        return " or ".join(map(show, get_args(hint)))
    if isinstance(hint, type) and get_origin(hint) is None:
        return _PLAIN.get(hint, hint.__qualname__)
    return "null" if hint is None else str(hint).replace("typing.", "")
