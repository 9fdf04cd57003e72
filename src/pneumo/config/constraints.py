"""Constraints on single configuration values, each with a description for error messages."""

import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf

Settings = Mapping[str, Any]  # the whole configuration or one of its groups
_MAX_SHOWN = 200  # characters of a value in a message
_MAX_EPOCHS = 1_000_000
_MAX_DEVICES = 64  # per machine: each device is a process
_SET_BY_PNEUMO = "left out: pneumo sets it itself"
# fmt: off
_PRECISIONS = (
    "auto", "32-true", "32", 32, "16-mixed", "16", 16, "bf16-mixed", "bf16", "bf16-true", "16-true", "64-true", "64",
    64, "transformer-engine", "transformer-engine-float16",
)
# fmt: on


class Rule(NamedTuple):
    """Constraint on a configuration value."""

    holds: Callable[[Any], bool]
    text: str  # completes the sentence "KEY=VALUE must be ..."; `{key}` is replaced with the key
    required: bool = True  # the key must be present

    def describe(self, key: str) -> str:
        """Return the description of the rule for a key."""
        return self.text.replace("{key}", key)


Keys = dict[str, Rule]


def number(
    example: float, lowest: float, highest: float = math.inf, above: bool = False, noun: str = "a number"
) -> Rule:
    """Return a rule for finite numbers from `lowest` to `highest`; with `above`, `lowest` is excluded."""
    most = "" if math.isinf(highest) else f"{' and at most' if above else ' to'} {highest:.10g}"
    return Rule(
        lambda value: is_number(value) and (lowest < value if above else lowest <= value) and value <= highest,
        f"{noun} {'above' if above else 'from'} {lowest:.10g}{most}, such as {{key}}={example:g}",
    )


def integer(example: int, lowest: int, highest: float = math.inf, noun: str = "a whole number") -> Rule:
    """Return a rule for integers from `lowest` to `highest`."""
    rule = number(example, lowest, highest, noun=noun)
    return rule._replace(holds=lambda value: is_integer(value) and rule.holds(value))


def one_of(*names: str | bool | float | None, rule: str = "") -> Rule:
    """Return a rule for a fixed set of values; `rule` replaces the default description, a list of the values."""
    shown = [show(name) for name in names]
    listed = ", ".join(shown[:-1]) + (" or " if shown[1:] else "") + shown[-1]
    return Rule(lambda value: any((type(value), value) == (type(name), name) for name in names), rule or listed)


def forbidden(rule: str) -> Rule:
    """Return a rule for a key that must not be set."""
    return optional(Rule(lambda _: False, rule))


def text(rule: str) -> Rule:
    """Return a rule for text that is not empty."""
    return Rule(lambda value: is_text(value) and len(value) <= 4096, rule)


def or_null(rule: Rule, meaning: str) -> Rule:
    """Return a rule that also allows null; `meaning` is the meaning of null."""
    return rule._replace(
        holds=lambda value: value is None or rule.holds(value), text=f"{rule.text}, or null for {meaning}"
    )


def optional(rule: Rule) -> Rule:
    """Return the rule for a key that may be absent."""
    return rule._replace(required=False)


def show(value: object) -> str:
    """Format a value as on the command line; shorten long values."""
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value, resolve=False)
    if isinstance(value, list):
        shown = f"[{','.join(map(show, value))}]"
    elif isinstance(value, dict):
        shown = f"{{{','.join(f'{name}:{show(item)}' for name, item in value.items())}}}"
    elif value is None:
        shown = "null"
    else:
        shown = (str(value).lower() if isinstance(value, bool) else str(value)) or "''"
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in shown)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."


def is_number(value: object) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_integer(value: object) -> bool:
    """Return whether a value is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_text(value: object) -> bool:
    """Return whether a value is text that is not blank; it may contain surrogate escapes of file names."""
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def is_plain_name(value: object, spaces: bool = False) -> bool:
    """Return whether a value is a plain file or folder name, without path separators."""
    letters = rf"[A-Za-z0-9_+=-][A-Za-z0-9_+=.{' ' if spaces else ''}-]{{0,99}}"
    return isinstance(value, str) and re.fullmatch(letters, value) is not None


def is_class_folder(value: object) -> bool:
    """Return whether a value is the name of a class's folder, which may be a number in YAML, such as [0,1]."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    name = str(value)
    return name.strip(". ") != "" and name.isprintable() and "/" not in name and len(name.encode()) <= 255


def is_duration(value: object) -> bool:
    """Return whether a value is a positive duration in Lightning's format: DD:HH:MM:SS or a mapping of units."""
    if isinstance(value, dict):
        known = {"weeks", "days", "hours", "minutes", "seconds"}
        return value.keys() <= known and all(is_number(part) and 0 <= part < 1e6 for part in value.values())
    return isinstance(value, str) and re.fullmatch(r"\d{1,5}(:\d\d){3}", value) is not None and value.strip("0:") != ""


SEED = integer(0, 0, 2**32 - 1)
FLAG = one_of(True, False)
SWITCH = one_of("auto", True, False)
PATH = text("a path that is not empty; quote a path that looks like a number or a list, as in '{key}=\"2024\"'")
RATE = number(0.001, 0, above=True)
_LIMIT = or_null(
    Rule(
        lambda value: (is_integer(value) and value >= 1) or (isinstance(value, float) and 0 < value <= 1),
        "a number of batches from 1, such as 4, a fraction up to 1.0",
    ),
    "all",
)
_STEPS = or_null(integer(1, 1), "Lightning's default")
LIMITS: dict[str, Keys] = {
    "optimizer": {
        "lr": RATE,
        "weight_decay": optional(number(0.1, 0)),
        "momentum": optional(number(0.9, 0, 1)),
        "fused": optional(or_null(FLAG, "PyTorch's choice")),
    },
    "callbacks": {"patience": optional(integer(3, 0)), "min_delta": optional(number(0.01, 0))},
    "scheduler": {
        **{name: optional(integer(10, 1, noun="a whole number of epochs")) for name in ("T_max", "T_0", "step_size")},
        "T_mult": optional(integer(2, 1)),
        **{name: optional(integer(5, 0, noun="a whole number of epochs")) for name in ("total_iters", "patience")},
        "factor": optional(number(0.5, 0, 1)),
        "gamma": optional(number(0.9, 0, above=True)),
    },
    "trainer": {
        "accelerator": text("auto, cpu, gpu, cuda or mps"),
        "precision": one_of(
            *_PRECISIONS,
            rule="auto, 32-true, 16-mixed, bf16-mixed, or another precision that Lightning's Trainer knows",
        ),
        "deterministic": one_of(True, False, "warn", None),
        "devices": Rule(
            lambda value: (
                (is_integer(value) and (value == -1 or 1 <= value <= _MAX_DEVICES))
                or is_text(value)
                or (isinstance(value, list) and bool(value) and all(is_integer(item) and item >= 0 for item in value))
            ),
            f"auto, a number of devices from 1 to {_MAX_DEVICES}, -1 for all, or their indices, such as {{key}}=[0]",
        ),
        # Spawn, fork and notebook strategies do not return the trained network to the process that tests it.
        "strategy": optional(
            Rule(
                lambda value: (
                    isinstance(value, dict) or (is_text(value) and not re.search("spawn|fork|notebook", value))
                ),
                "auto, ddp, or another Lightning strategy that launches subprocess scripts, such as {key}=ddp",
            )
        ),
        "max_epochs": integer(20, 1, _MAX_EPOCHS),
        "min_epochs": optional(or_null(integer(1, 0), "none")),
        "max_steps": optional(
            Rule(lambda value: is_integer(value) and (value == -1 or value >= 1), "a number from 1, or -1 for no limit")
        ),
        "min_steps": optional(or_null(integer(1, 0), "none")),
        "max_time": optional(
            or_null(
                Rule(is_duration, "DAYS:HOURS:MINUTES:SECONDS above 0, such as +trainer.max_time=00:01:30:00"),
                "no limit",
            )
        ),
        "limit_train_batches": _LIMIT,
        "limit_val_batches": _LIMIT,
        # A fraction is invalid: if it is too small, the error would occur only after training.
        "limit_test_batches": or_null(integer(4, 1, noun="a number of batches"), "all"),
        # Each checkpoint is calibrated on the validation predictions of its own epoch, which it stores.
        "check_val_every_n_epoch": optional(one_of(1, rule="1: each epoch is validated")),
        "val_check_interval": optional(one_of(None, 1.0, 1, rule="null: each epoch is validated once, at its end")),
        "log_every_n_steps": _STEPS,
        "num_sanity_val_steps": or_null(
            Rule(lambda value: is_integer(value) and value >= -1, "a number of batches from 0, -1 for all"), "two"
        ),
        "accumulate_grad_batches": optional(integer(4, 1)),
        "gradient_clip_val": optional(or_null(number(1, 0), "none")),
        "gradient_clip_algorithm": optional(one_of("norm", "value", None)),
        "use_distributed_sampler": one_of(False, rule="false: the data module gives each process its images"),
        "enable_model_summary": optional(one_of(True, False, None)),
        "enable_checkpointing": optional(one_of(True, None, rule="true: a run tests its best checkpoint")),
        "logger": forbidden(f"{_SET_BY_PNEUMO}; ~logger.tensorboard disables TensorBoard"),
        "callbacks": forbidden(f"{_SET_BY_PNEUMO}; +callbacks.NAME._target_=CLASS adds one"),
        **{name: forbidden(_SET_BY_PNEUMO) for name in ("plugins", "benchmark", "default_root_dir")},
        "limit_predict_batches": forbidden("left out: a run predicts only its test set"),
    },
}
