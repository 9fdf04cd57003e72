"""Limits of arguments of other libraries' classes that their signatures do not state."""

import re

from pneumo.config.constraints import (
    FLAG,
    Rule,
    addable,
    is_duration,
    is_text,
    is_whole,
    never,
    number,
    one_of,
    or_null,
    text,
    whole,
)
from pneumo.config.schema import RATE, Keys

_EPOCHS = 1_000_000
_DEVICES = 64  # of one machine: each is a process
_LIMIT = or_null(
    Rule(
        lambda value: (is_whole(value) and value >= 1) or (isinstance(value, float) and 0 < value <= 1),
        "a number of batches from 1, such as 4, a share up to 1.0",
    ),
    "all",
)
_STEPS = or_null(whole(1, 1), "Lightning's default")
_NOT_HERE = "left out: pneumo sets it itself"
# fmt: off
_PRECISIONS = (
    "auto", "32-true", "32", 32, "16-mixed", "16", 16, "bf16-mixed", "bf16", "bf16-true", "16-true", "64-true", "64",
    64, "transformer-engine", "transformer-engine-float16",
)
# fmt: on
LIMITS: dict[str, Keys] = {
    "optimizer": {
        "lr": RATE,
        "weight_decay": addable(number(0.1, 0)),
        "momentum": addable(number(0.9, 0, 1)),
        "fused": addable(or_null(FLAG, "PyTorch's choice")),
    },
    "callbacks": {"patience": addable(whole(3, 0)), "min_delta": addable(number(0.01, 0))},
    "scheduler": {
        **{name: addable(whole(10, 1, noun="a whole number of epochs")) for name in ("T_max", "T_0", "step_size")},
        "T_mult": addable(whole(2, 1)),
        **{name: addable(whole(5, 0, noun="a whole number of epochs")) for name in ("total_iters", "patience")},
        "factor": addable(number(0.5, 0, 1)),
        "gamma": addable(number(0.9, 0, above=True)),
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
                (is_whole(value) and (value == -1 or 1 <= value <= _DEVICES))
                or is_text(value)
                or (isinstance(value, list) and bool(value) and all(is_whole(item) and item >= 0 for item in value))
            ),
            f"auto, a number of devices from 1 to {_DEVICES}, -1 for all, or their numbers, such as {{key}}=[0]",
        ),
        # Of other ways to start processes, none brings the trained network back to the one that tests it.
        "strategy": addable(
            Rule(
                lambda value: (
                    isinstance(value, dict) or (is_text(value) and not re.search("spawn|fork|notebook", value))
                ),
                "auto, ddp, or another strategy of Lightning's that repeats the command, such as {key}=ddp",
            )
        ),
        "max_epochs": whole(20, 1, _EPOCHS),
        "min_epochs": addable(or_null(whole(1, 0), "none")),
        "max_steps": addable(
            Rule(lambda value: is_whole(value) and (value == -1 or value >= 1), "a number from 1, or -1 for no limit")
        ),
        "min_steps": addable(or_null(whole(1, 0), "none")),
        "max_time": addable(
            or_null(
                Rule(is_duration, "DAYS:HOURS:MINUTES:SECONDS above 0, such as +trainer.max_time=00:01:30:00"),
                "no limit",
            )
        ),
        "limit_train_batches": _LIMIT,
        "limit_val_batches": _LIMIT,
        # No share: one that is too small would end the run only after the training.
        "limit_test_batches": or_null(whole(4, 1, noun="a number of batches"), "all"),
        # Each checkpoint keeps what its own epoch's validation answered, by which it is decided.
        "check_val_every_n_epoch": addable(one_of(1, rule="1: each epoch is validated")),
        "val_check_interval": addable(one_of(None, 1.0, 1, rule="null: an epoch is validated once, at its end")),
        "log_every_n_steps": _STEPS,
        "num_sanity_val_steps": or_null(
            Rule(lambda value: is_whole(value) and value >= -1, "a number of batches from 0, -1 for all"), "two"
        ),
        "accumulate_grad_batches": addable(whole(4, 1)),
        "gradient_clip_val": addable(or_null(number(1, 0), "none")),
        "gradient_clip_algorithm": addable(one_of("norm", "value", None)),
        "use_distributed_sampler": one_of(False, rule="false: the data module gives each process its images"),
        "enable_model_summary": addable(one_of(True, False, None)),
        "enable_checkpointing": addable(one_of(True, None, rule="true: a run tests its best checkpoint")),
        "logger": never(f"{_NOT_HERE}; ~logger.tensorboard leaves TensorBoard out"),
        "callbacks": never(f"{_NOT_HERE}; +callbacks.NAME._target_=CLASS adds one"),
        **{name: never(_NOT_HERE) for name in ("plugins", "benchmark", "default_root_dir")},
        "limit_predict_batches": never("left out: a run does not predict beyond its test"),
    },
}
