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
    parts = [base]
    for key, name in short_names([key for key in varied if key not in _IN_EVERY_NAME]).items():
        if "." not in key:  # a choice of a group, such as `light`
            parts.append(_safe(values[key]))
        else:  # `lr0.01`, or `split-patient`
            between = "" if re.match(r"[-+]?[.\d]", values[key]) else "-"
            parts.append(f"{_safe(name)}{between}{_safe(values[key])}")
    return bounded_name("-".join(parts))


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last parts of dotted keys by the keys; keys that share one keep their whole names."""
    last = {key: key.rpartition(".")[2] for key in keys}
    counts = Counter(last.values())
    return {key: name if counts[name] == 1 else key for key, name in last.items()}


def _safe(text: str) -> str:
    """Keep what is safe in a file's name; what that changes or shortens ends in a hash, so that no two become one."""
    plain = text.strip("'\"")
    kept = re.sub(r"[^A-Za-z0-9.+_-]+", "_", plain).strip("_.")
    if kept == plain and len(kept) <= _LONGEST:
        return kept
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    return f"{kept[-_LONGEST:].lstrip('_.-')}_{digest[:4]}"
