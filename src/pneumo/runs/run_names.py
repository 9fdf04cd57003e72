"""Names of run folders, written by sweeps and parsed by the leaderboard.

A job is named `resnext-sgd-s0`, followed by the other settings that vary in its sweep. A trial of a search is named
`trial-000`. Users can set other names with hydra.sweep.subdir or hydra.run.dir.
"""

from __future__ import annotations

import re

IN_EVERY_NAME = ("model", "optimizer", "seed")  # keys of the values in `base_name`
_TRIAL = "trial-"
_FOLD = re.compile(r"fold\d+")


def base_name(model: str, optimizer: str, seed: int) -> str:
    """Return the first part of a job's name; hydra.sweep.subdir in conf/sweep.yaml has the same format."""
    return f"{model}-{optimizer}-s{seed}"


def trial_name(number: int) -> str:
    """Return the name of a trial of a search."""
    return f"{_TRIAL}{number:03d}"


def is_trial_name(name: str) -> bool:
    """Return whether a folder name is that of a trial."""
    return name.startswith(_TRIAL)


def parse_setting(name: str, model: str, optimizer: str, seed: int) -> str:
    """Return the part of a run's name without model, optimizer, seed and fold.

    Args:
        name: Name of the run folder, or `resnext-sgd-s0/TIME`, as train.py writes it.
        model: The run's model.
        optimizer: The run's optimizer.
        seed: The run's seed.
    """
    job, _, time = name.partition("/")
    base = base_name(model, optimizer, seed)
    is_standard = job == base or job.startswith(f"{base}-")
    rest = job[len(base) + 1 :].split("-") if is_standard else [part for part in job.split("-") if part != f"s{seed}"]
    setting = "-".join(part for part in rest if not _FOLD.fullmatch(part))
    return " ".join(filter(None, (setting, time)))
