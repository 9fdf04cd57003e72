"""Hints for Hydra's errors on command-line overrides: quoting and the closest existing key."""

import inspect
import re
import shlex
import signal
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.utils import get_object
from omegaconf import OmegaConf

from pneumo.common.streams import guarded_output
from pneumo.common.text import escape_prose, quote_override
from pneumo.config.console import require_launcher
from pneumo.config.fingerprints import current_target, flatten
from pneumo.config.resolvers import register_resolvers

# Hydra's errors for unknown keys
_KEY = re.compile(r"(?:Could not override|Could not delete(?: from config\.)?|but config group) '([^']+)'")
_SWEPT = re.compile(r"'([^']+=.*)'")
_SYNONYMS = {"learning_rate": "lr"}


@contextmanager
def command_line(script: Path) -> Iterator[None]:
    """Prepare for `hydra.main`: register resolvers, check the launcher, and add hints for mistyped overrides.

    `script` is train.py or sweep.py, next to conf/.
    """
    register_resolvers()
    if script.stem == "sweep":  # train.py has no `launcher` group
        require_launcher(sys.argv)
    with override_hints(script):
        yield


@contextmanager
def override_hints(script: Path) -> Iterator[None]:
    """Print a hint after Hydra's error on an override, which Hydra prints before it exits.

    Ctrl-C while Hydra composes the configuration prints one sentence and exits with status 130.
    """
    check_choices(sys.argv[1:], script.resolve().with_name("conf"))
    try:
        with guarded_output():
            yield
    except KeyboardInterrupt:
        print("Stopped by a signal before anything was started.", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except SystemExit as end:
        if isinstance(end.__context__, HydraException) and (hint := find_hint(end.__context__, sys.argv[1:], script)):
            print(escape_prose(hint), file=sys.stderr)
        raise


def check_choices(arguments: Sequence[str], conf: Path) -> None:
    """Exit with one paragraph if a config group is set to anything but a name; Hydra would print a traceback.

    Groups are the folders in `conf`.
    """
    for text in arguments:
        key, equals, _ = text.lstrip("+").partition("=")
        if not equals or not re.fullmatch(r"[\w/]+", key) or not (conf / key).is_dir():
            continue
        try:
            override = OverridesParser.create().parse_override(text)
            values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
        except HydraException:  # Hydra reports it later
            continue
        chosen = [name for value in values for name in (value if isinstance(value, list) else [value])]
        if any(not isinstance(name, str | QuotedString) for name in chosen):
            names = ", ".join(sorted(path.stem for path in (conf / key).glob("*.yaml")))
            raise SystemExit(
                f"{text} must be the name of a file in conf/{key}/: {names or 'none'}. Remove it to use the default."
            )


def find_hint(error: HydraException, arguments: Sequence[str], script: Path) -> str | None:
    """Return a hint for an error that Hydra raised for command-line arguments; None if there is none."""
    if isinstance(error, OverrideParseException):
        return _hint_quotes(error.override, arguments)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        close = get_close_matches(choice, error.options, n=1)
        return f"Did you mean {group}={close[0]}?" if close else None
    if not isinstance(error, ConfigCompositionException):
        return None
    head = str(error).partition("\n")[0]
    if swept := _SWEPT.search(head):
        single = "" if "(" in swept[1] else f"; quote a single value that contains a comma: {quote_override(swept[1])}"
        return f"Several values require sweep.py, as in `python sweep.py -m {shlex.quote(swept[1])}`{single}"
    return _hint_key(key[1], arguments, script) if (key := _KEY.search(head)) else None


def similar_keys(key: str, settings: Mapping[str, Any], groups: Collection[str] = ()) -> list[str]:
    """Return up to three keys that are similar to an unknown key, the most similar first.

    A key that is not in the configuration, but is a parameter of its group's `_target_`, has the prefix `+`.

    Args:
        key: The unknown key.
        settings: The composed configuration as plain nested dictionaries.
        groups: Names of config groups.
    """
    parts, node, depth = key.split("."), settings, 0
    while depth < len(parts) - 1 and isinstance(node.get(parts[depth]), Mapping):
        node, depth = node[parts[depth]], depth + 1
    above, name, below = parts[:depth], parts[depth], parts[depth + 1 :]
    known = {text for text, value in node.items() if isinstance(value, Mapping) == bool(below)}
    known |= set() if depth or below else {*groups}
    names = known | (set() if below else _parameters(node))
    keys = [full for full, _ in flatten(settings)]
    similar = [f"+{key}"] if name in names - known else []
    candidates = [] if similar else sorted(text for text in names - {name} if not text.startswith("_"))
    for match in get_close_matches(name, candidates, n=1):
        full = ".".join([*above, match, *below])
        if below and full not in keys:
            similar += similar_keys(full, settings, groups)
        else:
            similar.append(full if match in known else f"+{full}")
    last = _SYNONYMS.get(parts[-1], parts[-1])
    similar += [other for other in keys if other.rpartition(".")[2] == last != "_target_" and other != key]
    return list(dict.fromkeys(similar))[:3]


def _hint_quotes(override: str, arguments: Sequence[str]) -> str:
    """Return a hint with the quoted override; arguments without `=` belong to the value before them, if any."""
    if "=" not in override:
        index = arguments.index(override) if override in arguments else 0
        start = next((i for i in range(index, -1, -1) if "=" in arguments[i]), None)
        if start is None:
            return f"{override} has no value: an override must be KEY=VALUE, such as model=resnext."
        rest = takewhile(lambda word: "=" not in word and not word.startswith("-"), arguments[start + 1 :])
        override = " ".join([arguments[start], *rest])
    return (
        "Quote a value with spaces, brackets, commas, quotes, =, # or non-ASCII letters twice, for the shell and for "
        f"Hydra: {quote_override(override)}"
    )


def _hint_key(key: str, arguments: Sequence[str], script: Path) -> str | None:
    override = next((text for text in arguments if text.partition("=")[0].lstrip("+~") == key), key)
    _, equals, value = override.partition("=")
    settings, groups = _compose(arguments, script, key.startswith("hydra."))
    above, inside = _deepest_group(key, settings)
    if above == "data.columns" and not get_close_matches(key.rpartition(".")[2], inside, n=1):
        return f"{_list_settings(above, inside)} Other columns of the table are kept without a setting."
    if choices := _choices_with(key, settings, script.resolve().with_name("conf")):
        verb, listed = "has" if len(choices) == 1 else "have", " or ".join(choices)
        group = f"{key.partition('.')[0]}="
        use = f"Use {listed} instead" if any(text.startswith(group) for text in arguments) else f"Add {listed}"
        return f"{use}, which {verb} the setting {key}; do not use +."
    if similar := similar_keys(key, settings, groups):
        sign = "~" if override.startswith("~") else ""
        shown = (shlex.quote(f"{sign}{each}{equals}{value}") for each in similar)
        return f"Did you mean {' or '.join(shown)}?"
    if above:
        return _list_settings(above, inside)
    return f"`python {script.name} --cfg job` prints all settings."


def _deepest_group(key: str, settings: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the name and the settings of the innermost existing group that an unknown key is in."""
    above: list[str] = []
    for part in key.split(".")[:-1]:
        if not isinstance(settings.get(part), Mapping):
            break
        above.append(part)
        settings = settings[part]
    return ".".join(above), settings


def _list_settings(group: str, settings: Mapping[str, Any]) -> str:
    return f"{group} has the settings {', '.join(sorted(name for name in settings if not name.startswith('_')))}."


def _choices_with(key: str, settings: Mapping[str, Any], conf: Path) -> list[str]:
    """Return the options of a config group that have an unknown key of the composed group, such as `data=table`.

    There are none if the key is a parameter of the composed group's `_target_`, which `+` adds.
    """
    group, _, rest = key.partition(".")
    name, inside = rest.partition(".")[0], settings.get(group)
    if not (isinstance(inside, Mapping) and name and name not in inside and (conf / group).is_dir()):
        return []
    files = [path for path in sorted((conf / group).glob("*.yaml")) if name in OmegaConf.load(path)]
    return [] if files and name in _parameters(inside) else [f"{group}={path.stem}" for path in files]


def _compose(arguments: Sequence[str], script: Path, of_hydra: bool) -> tuple[dict[str, Any], list[str]]:
    """Compose with the group choices only; return Hydra's settings or all others, and the names of groups."""
    with initialize_config_dir(config_dir=str(script.resolve().with_name("conf")), version_base="1.3"):
        try:
            cfg = compose(script.stem, _choices(arguments), return_hydra_config=True)
        except HydraException:
            cfg = compose(script.stem, return_hydra_config=True)
    groups = [str(name) for name in cfg.hydra.runtime.choices]
    settings = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(settings, dict)
    return {str(name): value for name, value in settings.items() if (name == "hydra") == of_hydra}, groups


def _choices(arguments: Sequence[str]) -> list[str]:
    """Return the overrides that may select an option of a config group: a key without dots and a single value."""
    parser = OverridesParser.create()
    named = (text for text in arguments if re.match(r"[\w/]+=", text))
    return [text for text in named if not parser.parse_override(text).is_sweep_override()]


def _parameters(node: Mapping[str, Any]) -> set[str]:
    """Return the parameter names of a group's `_target_`, which takes seconds to import."""
    if not isinstance(target := node.get("_target_"), str):
        return set()
    try:
        return {*inspect.signature(get_object(current_target(target))).parameters}
    except (HydraException, ValueError, TypeError, ImportError):
        return set()
