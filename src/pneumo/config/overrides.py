"""Hints after Hydra's errors on command-line overrides: quoting, and the closest existing key."""

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
from pneumo.config.fingerprints import flatten, present_target
from pneumo.config.resolvers import register_resolvers

# Of Hydra's errors on keys these are about unknown ones.
_KEY = re.compile(r"(?:Could not override|Could not delete(?: from config\.)?|but config group) '([^']+)'")
_SWEPT = re.compile(r"'([^']+=.*)'")
_SYNONYMS = {"learning_rate": "lr"}


@contextmanager
def command_line(script: Path) -> Iterator[None]:
    """Prepare for Hydra's main: resolvers of conf/, launchers of sweeps, hints for mistyped overrides.

    `script` is train.py or sweep.py, next to conf/.
    """
    register_resolvers()
    if script.stem == "sweep":  # train.py has no group `launcher`
        require_launcher(sys.argv)
    with override_hints(script):
        yield


@contextmanager
def override_hints(script: Path) -> Iterator[None]:
    """Print a hint after Hydra's error on an override; Hydra prints the error and exits while it handles it.

    A stop by Ctrl-C while Hydra composes the configuration gets one sentence and status 130.
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
    """End with one paragraph if a config group, a folder in `conf`, is set to no name: Hydra has a traceback for it."""
    for text in arguments:
        key, equals, _ = text.lstrip("+").partition("=")
        if not equals or not re.fullmatch(r"[\w/]+", key) or not (conf / key).is_dir():
            continue
        try:
            override = OverridesParser.create().parse_override(text)
            values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
        except HydraException:  # printed by Hydra, with a hint
            continue
        chosen = [name for value in values for name in (value if isinstance(value, list) else [value])]
        if any(not isinstance(name, str | QuotedString) for name in chosen):
            names = ", ".join(sorted(path.stem for path in (conf / key).glob("*.yaml")))
            raise SystemExit(
                f"{text} must be the name of a file in conf/{key}/: {names or 'none'}. Leave it out for the default."
            )


def find_hint(error: HydraException, arguments: Sequence[str], script: Path) -> str | None:
    """Return the hint on an error that Hydra raised for the arguments of a command line, None if there is none."""
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
        one = "" if "(" in swept[1] else f", and one value with a comma in it is quoted: {quote_override(swept[1])}"
        return f"Several values need sweep.py, as in `python sweep.py -m {shlex.quote(swept[1])}`{one}"
    return _hint_key(key[1], arguments, script) if (key := _KEY.search(head)) else None


def similar_keys(key: str, settings: Mapping[str, Any], groups: Collection[str] = ()) -> list[str]:
    """Return up to three keys that an unknown one may stand for, the most similar first.

    A key that only the constructor of its group's `_target_` knows has a `+` before it. `settings` is the composed
    configuration, as plain nested dictionaries. `groups` are chosen by their names.
    """
    parts, node, depth = key.split("."), settings, 0
    while depth < len(parts) - 1 and isinstance(node.get(parts[depth]), Mapping):
        node, depth = node[parts[depth]], depth + 1
    above, name, below = parts[:depth], parts[depth], parts[depth + 1 :]
    known = {text for text, value in node.items() if isinstance(value, Mapping) == bool(below)}
    known |= set() if depth or below else {*groups}
    names = known | (set() if below else _parameters(node))
    keys = [full for full, _ in flatten(settings)]
    found = [f"+{key}"] if name in names - known else []
    candidates = [] if found else sorted(text for text in names - {name} if not text.startswith("_"))
    for match in get_close_matches(name, candidates, n=1):
        full = ".".join([*above, match, *below])
        if below and full not in keys:
            found += similar_keys(full, settings, groups)
        else:
            found.append(full if match in known else f"+{full}")
    last = _SYNONYMS.get(parts[-1], parts[-1])
    found += [other for other in keys if other.rpartition(".")[2] == last != "_target_" and other != key]
    return list(dict.fromkeys(found))[:3]


def _hint_quotes(override: str, arguments: Sequence[str]) -> str:
    """Show the override with quotes; words without `=` belong to the value before them, if there is one."""
    if "=" not in override:
        place = arguments.index(override) if override in arguments else 0
        start = next((i for i in range(place, -1, -1) if "=" in arguments[i]), None)
        if start is None:
            return f"{override} has no value: an override is KEY=VALUE, such as model=resnext."
        rest = takewhile(lambda word: "=" not in word and not word.startswith("-"), arguments[start + 1 :])
        override = " ".join([arguments[start], *rest])
    return (
        "A value with spaces, brackets, commas, quotes, =, # or letters beyond a to z is quoted twice, for the shell "
        f"and for Hydra: {quote_override(override)}"
    )


def _hint_key(key: str, arguments: Sequence[str], script: Path) -> str | None:
    override = next((text for text in arguments if text.partition("=")[0].lstrip("+~") == key), key)
    _, equals, value = override.partition("=")
    settings, groups = _compose(arguments, script, key.startswith("hydra."))
    if similar := similar_keys(key, settings, groups):
        sign = "~" if override.startswith("~") else ""
        shown = (shlex.quote(f"{sign}{found}{equals}{value}") for found in similar)
        return f"Did you mean {' or '.join(shown)}?"
    group = key.partition(".")[0]
    inside = settings.get(group)
    if isinstance(inside, Mapping) and "." in key:
        return f"{group} has the settings {', '.join(sorted(n for n in inside if not n.startswith('_')))}."
    return f"`python {script.name} --cfg job` prints all settings."


def _compose(arguments: Sequence[str], script: Path, of_hydra: bool) -> tuple[dict[str, Any], list[str]]:
    """Compose the configuration, Hydra's or the other, without the values that are set; return the groups too."""
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
    """Return the overrides that may choose a config of a group: a single value, a key without dots."""
    parser = OverridesParser.create()
    named = (text for text in arguments if re.match(r"[\w/]+=", text))
    return [text for text in named if not parser.parse_override(text).is_sweep_override()]


def _parameters(node: Mapping[str, Any]) -> set[str]:
    """Return what the constructor of a group accepts; importing it takes seconds."""
    if not isinstance(target := node.get("_target_"), str):
        return set()
    try:
        return {*inspect.signature(get_object(present_target(target))).parameters}
    except (HydraException, ValueError, TypeError, ImportError):
        return set()
