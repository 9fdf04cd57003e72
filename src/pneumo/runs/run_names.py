"""Names of the folders of runs: what sweeps write into them, and what the leaderboard reads from them.

A job is named `resnext-sgd-s0`, and after that what else differs between the jobs of its sweep; a trial of a search
`trial-000`. A user may give other names by hydra.sweep.subdir or hydra.run.dir.
"""

from __future__ import annotations

import re

IN_EVERY_NAME = ("model", "optimizer", "seed")  # keys of what `base_name` has
_TRIAL = "trial-"
_FOLD = re.compile(r"fold\d+")


def base_name(model: str, optimizer: str, seed: int) -> str:
    """Name a job whose sweep varies nothing else; hydra.sweep.subdir in conf/sweep.yaml has the same format."""
    return f"{model}-{optimizer}-s{seed}"


def trial_name(number: int) -> str:
    """Name a trial of a search."""
    return f"{_TRIAL}{number:03d}"


def is_trial_name(name: str) -> bool:
    """Return whether a folder is named as a trial of a search is."""
    return name.startswith(_TRIAL)


def read_setting(name: str, model: str, optimizer: str, seed: int) -> str:
    """Return what a run's name says of it besides network, optimizer, seed and fold.

    Args:
        name: Of the run's folder, or as train.py writes them `resnext-sgd-s0/TIME`.
        model: The run's network.
        optimizer: The run's optimizer.
        seed: The run's seed.
    """
    job, _, time = name.partition("/")
    base = base_name(model, optimizer, seed)
    named = job == base or job.startswith(f"{base}-")
    rest = job[len(base) + 1 :].split("-") if named else [part for part in job.split("-") if part != f"s{seed}"]
    setting = "-".join(part for part in rest if not _FOLD.fullmatch(part))
    return " ".join(filter(None, (setting, time)))
