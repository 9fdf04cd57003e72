"""Stored golden values, and their differences from current values."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

VALUES = Path(__file__).parent / "values"
# Processors sum in different orders. The values are from a processor with AVX-512. On a processor with AVX2, logits of
# fully trained networks differ by up to 2.1e-3 after two epochs, all other values by less than 5e-4.
AS_RECORDED = torch.backends.cpu.get_cpu_capability() == "AVX512"
TOLERANCE = 5e-4 if AS_RECORDED else 5e-3


def without_rounding(runs: dict[str, Any]) -> dict[str, Any]:
    """Remove values of runs that rounding changes abruptly, for comparison on other processors.

    NumPy's exponentials differ in the last bit with AVX-512, so a few pixels of phantoms differ, and with them the
    sizes of files. Rank-based metrics change abruptly if two images with nearly equal logits change their order.
    """
    ranks = [f"test_{name}{end}" for name in ("auroc", "auprc") for end in ("", "_ci_low", "_ci_high")]
    unstable = {"xraychestnet": ["data_hash"], "robust": ranks}
    return {
        name: run | {"results": {k: v for k, v in run["results"].items() if k not in unstable.get(name, ())}}
        for name, run in runs.items()
    }


def load(name: str) -> Any:  # noqa: ANN401 (any JSON value)
    """Return the stored values of a collector."""
    return json.loads((VALUES / f"{name}.json").read_text(encoding="utf-8"))


def differences(stored: Any, found: Any, tolerance: float = TOLERANCE, at: str = "") -> Iterator[str]:  # noqa: ANN401
    """Yield a line for each difference from the stored values; added keys and names are not differences.

    Args:
        stored: Stored JSON value.
        found: Current JSON value.
        tolerance: Absolute and relative tolerance of floats; the larger one applies.
        at: Path of both values, for messages.
    """
    if isinstance(stored, dict) and isinstance(found, dict):
        for key, value in stored.items():
            if key in found:
                yield from differences(value, found[key], tolerance, f"{at}/{key}")
            else:
                yield f"{at}/{key} is missing"
    elif isinstance(stored, list) and isinstance(found, list):
        if _are_names(stored) and _are_names(found):
            yield from (f"{at} lacks {name}" for name in stored if name not in found)
            if [name for name in found if name in stored] != [name for name in stored if name in found]:
                yield f"{at} has another order: {found}"
        elif len(stored) != len(found):
            yield f"{at} has {len(found)} items, not {len(stored)}"
        else:
            for i, pair in enumerate(zip(stored, found, strict=True)):
                yield from differences(*pair, tolerance, f"{at}/{i}")
    elif type(stored) is float and type(found) is float:
        if not math.isclose(stored, found, rel_tol=tolerance, abs_tol=tolerance):
            yield f"{at} is {found}, not {stored}"
    elif stored != found or type(stored) is not type(found):
        yield f"{at} is {found!r}, not {stored!r}"


def _are_names(values: list[Any]) -> bool:
    """Return whether a list consists of unique strings."""
    return all(isinstance(value, str) for value in values) and len(set(values)) == len(values) > 0
