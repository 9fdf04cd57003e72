"""Checks of a composed configuration that run before any expensive import or read."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from pneumo.config.constraints import LIMITS, RATE, Keys, Settings, show
from pneumo.config.fingerprints import stable_target
from pneumo.config.relations import check_monitors, check_relations
from pneumo.config.schema import DATA, DATA_REQUIRED, GROUPS, HYDRA_KEYS, SWEEP, TABLE, TARGETS, TOP_LEVEL
from pneumo.errors import ConfigError

_ONE_CLASS = ("trainer", "data", "augment", "optimizer", "scheduler")  # trainer first: the others refer to it
_MANY_CLASSES = ("callbacks", "logger")
_GROUPS = (*_ONE_CLASS, *_MANY_CLASSES, *GROUPS)
_NAMES = (*_GROUPS, *TOP_LEVEL, *SWEEP, "experiment", "learning_rates")


def check_config(cfg: DictConfig) -> None:
    """Validate keys and values as far as possible without importing classes; raise a ConfigError if one is invalid."""
    _check_groups(cfg)
    settings = resolve(cfg)
    _check_names(cfg, settings)
    _check_keys("", settings, TOP_LEVEL, closed=False)
    for group, keys in (GROUPS | SWEEP).items():
        if group in settings:
            _check_keys(group, _as_group(group, settings[group]), keys, complete=group in GROUPS)
    rates = _as_group("learning_rates", settings.get("learning_rates", {}))
    _check_keys("learning_rates", rates, dict.fromkeys(rates, RATE))
    for key, node in class_nodes(settings).items():
        _check_target(key, node)
    check_relations(settings)
    check_monitors(cfg)


def class_nodes(settings: Settings) -> dict[str, Any]:
    """Return the nodes of a configuration that require a `_target_`, by key."""
    many = {f"{group}.{name}": node for group in _MANY_CLASSES for name, node in settings[group].items()}
    return {group: settings[group] for group in _ONE_CLASS} | many


def argument_rules(key: str, target: str) -> tuple[Keys, bool]:
    """Return the rules for the arguments of a `_target_`, and whether arguments without a rule are invalid."""
    group = key.partition(".")[0]
    if (stable := stable_target(target)) in TARGETS:
        return TARGETS[stable], True
    if group == "data":
        return {name: rule._replace(required=name in DATA_REQUIRED) for name, rule in DATA.items()}, False
    return LIMITS.get(group, {}), False


def check_sweep(cfg: DictConfig) -> None:
    """Validate the settings that all jobs of a sweep share; raise a ConfigError if one is invalid."""
    if cfg.ckpt_path is not None:
        raise ConfigError(
            f"ckpt_path={cfg.ckpt_path} is only for train.py: a sweep resumes its unfinished runs from their own "
            "checkpoints. Remove it."
        )
    for group, keys in SWEEP.items():
        if not isinstance(cfg.get(group), DictConfig):
            raise ConfigError(f"`{group}` must be a group of settings, as in conf/sweep.yaml. Do not override it.")
        _check_keys(group, resolve(cfg[group]), keys)


def check_folders(cfg: DictConfig) -> None:
    """Validate the settings that determine a sweep's folder; raise a ConfigError if one is invalid."""
    _check_groups(cfg)
    plain = OmegaConf.to_container(cfg, resolve=False)  # interpolations remain text
    assert isinstance(plain, dict)
    _check_keys("paths", _as_group("paths", plain["paths"]), GROUPS["paths"], complete=False)
    _check_keys("", {"ckpt_path": plain["ckpt_path"]}, TOP_LEVEL, complete=False)


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain dictionaries, lists and values, with all interpolations resolved.

    The group `hydra` is omitted: some of its values are missing until a job starts.

    Raises:
        ConfigError: An interpolation cannot be resolved, or a mandatory value is missing (`???`).
    """
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]) if "hydra" in cfg else cfg
    try:
        plain = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise resolution_error(error) from error
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def overrides_as_text(overrides: ListConfig) -> list[str]:
    """Return overrides as text; iterating over the ListConfig would resolve the `${b}` of `a=${b}`."""
    return list(map(str, OmegaConf.to_container(overrides, resolve=False) or []))


def resolution_error(error: OmegaConfBaseException | RecursionError) -> ConfigError:
    """Return the user error for an interpolation that cannot be resolved."""
    key = getattr(error, "full_key", None) or "A setting"
    if isinstance(error, MissingMandatoryValue):
        return ConfigError(f"{key} has no value (???). Set {key}=VALUE.")
    reason = "it refers to itself" if isinstance(error, RecursionError) else str(error).partition("\n")[0].rstrip(".")
    return ConfigError(
        f"{key} cannot be resolved ({show(reason)}): ${{NAME}} in its value must be the full key of another setting, "
        "as in trainer.max_epochs=${epochs}. Write a literal dollar sign as \\${."
    )


def _check_groups(cfg: DictConfig) -> None:
    """Check that all required settings and groups exist, since others may refer to them."""
    _check_complete("", cfg, TOP_LEVEL)
    for key in _GROUPS:
        if key not in cfg:
            raise ConfigError(
                f"`{key}` is missing from the configuration: it is required. Remove single entries instead, such as "
                "~logger.tensorboard or ~callbacks.progress; scheduler=constant disables the schedule."
            )
        if not OmegaConf.is_interpolation(cfg, key):
            _as_group(key, cfg[key])


def _as_group(key: str, value: Any) -> Settings:  # noqa: ANN401 (any YAML value)
    if isinstance(value, Mapping | DictConfig):
        return value
    raise ConfigError(
        f"{key}={show(value)} must be a group of settings. Remove the override, or set single settings with "
        f"{key}.NAME=VALUE."
    )


def _check_names(cfg: DictConfig, settings: Settings) -> None:
    """Raise a ConfigError for an unknown top-level setting, unless another setting (also of Hydra) refers to it."""
    texts = [str(OmegaConf.to_container(each, resolve=False)) for each in (cfg, HydraConfig.instance().cfg) if each]
    references = re.findall(r"\$\{[^}]*", " ".join(texts))
    for name in settings:
        if name in _NAMES or any(re.search(rf"\b{re.escape(name)}\b", reference) for reference in references):
            continue
        close = get_close_matches(name, _NAMES, 1, 0.8)
        instead = f"set {close[0]}" if close else "store a note with the run as +notes=TEXT"
        raise ConfigError(f"{show(name)} is not a setting, so it would have no effect. Remove it, or {instead}.")


def _check_target(key: str, node: Any) -> None:  # noqa: ANN401 (any YAML value)
    """Validate a node with a `_target_`: pneumo's classes by their schema, other classes by the rules of the group."""
    if not isinstance(node, Mapping):
        raise ConfigError(
            f"{key}={show(node)} must be a group with a class as its _target_, such as "
            "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping. ~callbacks.NAME removes an entry."
        )
    if "_target_" not in node:
        group = key.partition(".")[0]
        raise ConfigError(f"{key}._target_ is missing: it must be a class, as in conf/{group}/. Do not remove it.")
    _check_keys(key, node, HYDRA_KEYS, closed=False, complete=False)
    keys, closed = argument_rules(key, node["_target_"])
    _check_keys(key, {name: value for name, value in node.items() if name not in HYDRA_KEYS}, keys, closed)


def _check_keys(prefix: str, settings: Settings, keys: Keys, closed: bool = True, complete: bool = True) -> None:
    """Validate the settings of a group by the rules of its keys.

    `closed` rejects keys without a rule; `complete` rejects a group in which a required key is missing.
    """
    for name, value in settings.items():
        key = f"{prefix}.{name}".lstrip(".")
        if name in keys and not keys[name].holds(value):
            raise ConfigError(f"{key}={show(value)} must be {keys[name].describe(key)}.")
        if name not in keys and closed:
            reason = "is not a setting, so it would have no effect"
            raise ConfigError(f"{show(key)} {reason}. {_instead(prefix, name, keys)}")
    if complete:
        _check_complete(prefix, settings, keys)


def _check_complete(prefix: str, settings: Settings | DictConfig, keys: Keys) -> None:
    for name, rule in keys.items():
        if rule.required and name not in settings:
            key = f"{prefix}.{name}".lstrip(".")
            needed = rule.describe(key)
            raise ConfigError(f"{key} is missing from the configuration: it must be {needed}. Do not remove it.")


def _instead(prefix: str, name: object, keys: Keys) -> str:
    if prefix == "data" and name in TABLE and name not in keys:
        return "Add data=table, which has this setting, and write it without +."
    if close := get_close_matches(str(name), keys, 1):
        return f"Remove it. Did you mean {prefix}.{close[0]}?"
    valid = f"the settings {', '.join(sorted(keys))}" if keys else "no settings"
    return f"Remove it: {prefix} has {valid}."
