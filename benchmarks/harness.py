"""What the benchmarks share: both sides in one run, alternating, each round in a fresh process."""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich
from rich.table import Table

from pneumo.common.files import atomic_path, write_text

Side = Callable[[], float]


@dataclass(frozen=True)
class Settings:
    """What the command line asked for.

    Attributes:
        full: Real data and real sizes, in place of a short run on phantoms.
        rounds: How often each side is measured.
        out: Where JSON files and charts go.
        root: The data set.
    """

    full: bool
    rounds: int
    out: Path
    root: Path


def parse(description: str, rounds: int = 3, phantoms: int = 256) -> Settings:
    """Read the command line, and draw phantoms where no real data are asked for.

    Args:
        description: What is measured, for --help.
        rounds: How often each side is measured by default.
        phantoms: Training images of the short run.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the data in PNEUMO_DATA_ROOT; default: a few phantoms")
    parser.add_argument("--rounds", type=int, default=rounds, help="measurements of each side (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="folder (default: %(default)s)")
    given = parser.parse_args()
    if given.full and "PNEUMO_DATA_ROOT" not in os.environ:
        parser.error("--full measures on the real radiographs: set PNEUMO_DATA_ROOT to their folder")
    root = Path(os.environ["PNEUMO_DATA_ROOT"]) if given.full else given.out / f"phantoms-{phantoms}"
    if not given.full:
        from pneumo.data.phantoms import write_phantoms

        write_phantoms(root, seed=0, train=phantoms, val=16, test=64)
    return Settings(given.full, given.rounds, given.out, root)


def fresh_process() -> ProcessPoolExecutor:
    """Give a process that inherits nothing, whose own workers start as they would in a program of its own."""
    usual = multiprocessing.get_start_method()  # else they would be spawned too, and each import torch anew
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, spawn, _set_start_method, (usual,))


def _set_start_method(method: str) -> None:
    multiprocessing.set_start_method(method, force=True)


def alternate(sides: Mapping[str, Side], rounds: int) -> dict[str, list[float]]:
    """Measure the sides in turn, each time in a fresh process, so that neither profits from what the other left.

    Args:
        sides: By name: functions that can be pickled and give what they measured.
        rounds: How often.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            with fresh_process() as pool:
                value = pool.submit(side).result()
            found[name].append(value)
            rich.print(f"[dim]round {number + 1}/{rounds}  {name}: {show(value)}[/dim]", flush=True)
    return found


def show(value: float) -> str:
    """Give a value's first four digits, or all those before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def report(name: str, settings: Settings, unit: str, found: Mapping[str, Sequence[float]], note: str = "") -> None:
    """Print medians and ratios to the first side, and write them as JSON and as a bar chart.

    Args:
        name: The benchmark's.
        settings: What it ran with.
        unit: Of the values; one that ends in `/s` is better when it is larger, another when it is smaller.
        found: The values of each side; the first is what the others are compared with.
        note: What a reader must know.
    """
    median = {side: statistics.median(values) for side, values in found.items()}
    first = next(iter(median.values()))
    faster = {side: value / first if unit.endswith("/s") else first / value for side, value in median.items()}
    table = Table(title=f"{name}, {'real data' if settings.full else 'phantoms'}", caption=note or None)
    for column in ("", f"median [{unit}]", "lowest", "highest", "times as fast"):
        table.add_column(column, justify="right" if column else "left")
    for side, values in found.items():
        table.add_row(side, *map(show, (median[side], min(values), max(values))), f"{faster[side]:.2f}")
    rich.print(table)
    path = settings.out / f"{name}{'-full' if settings.full else ''}.json"
    content: dict[str, Any] = {"unit": unit, "median": median, "times_as_fast": faster, "all": dict(found)}
    content |= {"note": note, "machine": machine(), "full": settings.full}
    write_text(path, json.dumps(content, indent=2) + "\n")
    _draw(path.with_suffix(".png"), f"{name}: {unit}", median, faster)
    rich.print(f"[dim]{path}, {path.with_suffix('.png').name}[/dim]\n")


def machine() -> dict[str, Any]:
    """Tell what the figures come from."""
    import torch

    from pneumo.common.hardware import count_cores

    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        cpu = next((x.split(":")[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")), cpu)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": count_cores(), "gpu": gpu, "torch": str(torch.__version__)}


def _draw(path: Path, title: str, median: Mapping[str, float], faster: Mapping[str, float]) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.5 * len(median)), layout="constrained")
    names = list(median)[::-1]
    colours = ["#0072B2" if "pneumo" in name else "#999999" for name in names]
    bars = axes.barh(names, [median[name] for name in names], color=colours, height=0.65)
    labels = [f"{show(median[name])}  ({faster[name]:.3g}x)" for name in names]
    axes.bar_label(bars, labels, padding=4, fontsize=10)
    axes.set_xlim(right=1.25 * max(median.values()))
    axes.set_title(title, fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
