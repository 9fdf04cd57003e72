"""Names of jobs' folders: short, of safe characters, the same whenever the same sweep is run."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from pneumo.files import bounded_name

_IN_EVERY_NAME = ("model", "optimizer", "seed")  # see hydra.sweep.subdir in conf/sweep.yaml
_LONGEST = 24  # characters of a value


def job_name(base: str, values: Mapping[str, str], varied: Sequence[str]) -> str:
    """Name a job: resnext-sgd-s0, and after that what else differs between the sweep's jobs.

    Args:
        base: The name without that.
        values: The job's overrides by their keys.
        varied: Keys whose values differ between jobs.
    """
    others = [key for key in varied if key not in _IN_EVERY_NAME]
    short = Counter(_last(key) for key in others)
    parts = (_part(_last(key) if short[_last(key)] == 1 else key, key, values[key]) for key in others)
    return bounded_name("-".join([base, *parts]))


def _part(name: str, key: str, value: str) -> str:
    """Say `lr0.01` of a number, `light` of a choice of a group, `split-patient` of any other value."""
    if "." not in key:
        return _safe(value)
    between = "" if re.match(r"[-+]?[.\d]", value) else "-"
    return f"{_safe(name)}{between}{_safe(value)}"


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _safe(text: str) -> str:
    """Keep what is safe in a file's name; what that changes or shortens ends in a hash, so that no two become one."""
    plain = text.strip("'\"")
    kept = re.sub(r"[^A-Za-z0-9.+_-]+", "_", plain).strip("_.")
    if kept == plain and len(kept) <= _LONGEST:
        return kept
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    return f"{kept[-_LONGEST:].lstrip('_.-')}_{digest[:4]}"
