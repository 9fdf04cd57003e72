"""Comparison of golden values with current values; --write stores the current values.

Print all differences and additions:       PYTHONPATH=tests python -m golden.compare

Print only those of `runs`:                PYTHONPATH=tests python -m golden.compare runs

Also store them, for intended additions:   PYTHONPATH=tests python -m golden.compare --write runs
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from golden.collect import (
    all_pairs,
    collect_commands,
    collect_predictions,
    collect_resumed,
    collect_runs,
    collect_settings,
    few_pairs,
    hash_choices,
)
from golden.collect_keys import collect_outputs, collect_sweep
from golden.values import VALUES, differences, load

COLLECTORS: dict[str, Callable[[Path], Any]] = {
    "hashes": lambda _: hash_choices(all_pairs()),
    "hashes_few": lambda _: hash_choices(few_pairs()),
    "settings": collect_settings,
    "commands": collect_commands,
    "runs": collect_runs,
    "predictions": collect_predictions,
    "resumed": collect_resumed,
    "sweep": collect_sweep,
    "outputs": collect_outputs,
}


def collect(name: str) -> Any:  # noqa: ANN401 (any JSON value)
    """Return the current values of a collector, after a round trip through JSON."""
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        return json.loads(json.dumps(COLLECTORS[name](Path(folder))))


def store(name: str, values: Any) -> None:  # noqa: ANN401 (any JSON value)
    """Write values with each key or short list on a separate line."""
    (VALUES / f"{name}.json").write_text(f"{_format(values)}\n", encoding="utf-8")


def _format(value: Any, indent: str = "") -> str:  # noqa: ANN401 (any JSON value)
    line, deeper = json.dumps(value), f"{indent} "
    if not value or not isinstance(value, list | dict) or len(indent) + len(line) <= 118:
        return line
    if isinstance(value, list):
        items = [_format(item, deeper) for item in value]
    else:
        items = [f"{json.dumps(key)}: {_format(item, deeper)}" for key, item in value.items()]
    opening, closing = "[]" if isinstance(value, list) else "{}"
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(items) + f"\n{indent}{closing}"


def main() -> int:
    """Compare values, and write them with --write; return 1 if any differ, else 0."""
    write, chosen = "--write" in sys.argv, [name for name in sys.argv[1:] if name != "--write"]
    if write and not chosen:
        raise SystemExit("--write needs names: " + ", ".join(COLLECTORS))
    lines = []
    for name in chosen or COLLECTORS:
        found = collect(name)
        stored = load(name) if (VALUES / f"{name}.json").is_file() else {}
        lines += [f"differs: {line}" for line in differences(stored, found, at=name)]
        lines += [
            f"added: {line}" for line in differences(found, stored, at=name) if "lacks" in line or "missing" in line
        ]
        if write:
            store(name, found)
    print("\n".join(lines) or "no difference")
    return min(len([line for line in lines if line.startswith("differs")]), 1)


if __name__ == "__main__":
    sys.exit(main())
