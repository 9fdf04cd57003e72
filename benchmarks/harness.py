"""Shared benchmark harness: alternating measurements of all variants, each in a fresh process."""

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

Variant = Callable[[], float]  # measures one implementation and returns the measured value


@dataclass(frozen=True)
class Settings:
    """Settings from the command line.

    Attributes:
        full: Use real data and sizes instead of a short run on synthetic images.
        rounds: Number of measurements of each variant.
        out: Output folder of JSON files and charts.
        root: Folder of the data set.
    """

    full: bool
    rounds: int
    out: Path
    root: Path


def parse(description: str, rounds: int = 3, phantoms: int = 256) -> Settings:
    """Parse the command line, and write synthetic images unless real data are requested.

    Args:
        description: Description for --help.
        rounds: Default number of measurements of each variant.
        phantoms: Number of training images in the short run.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="use the data in PNEUMO_DATA_ROOT (default: phantoms)")
    parser.add_argument("--rounds", type=int, default=rounds, help="measurements per variant (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="folder (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.full and "PNEUMO_DATA_ROOT" not in os.environ:
        parser.error("--full requires real radiographs: set PNEUMO_DATA_ROOT to their folder")
    root = Path(os.environ["PNEUMO_DATA_ROOT"]) if arguments.full else arguments.out / f"phantoms-{phantoms}"
    if not arguments.full:
        from pneumo.data.phantoms import write_phantoms

        write_phantoms(root, seed=0, train=phantoms, val=16, test=64)
    return Settings(arguments.full, arguments.rounds, arguments.out, root)


def fresh_process() -> ProcessPoolExecutor:
    """Return an executor with one spawned process, whose own workers use the default start method."""
    default = multiprocessing.get_start_method()  # spawned workers would each import torch again
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, spawn, _set_start_method, (default,))


def _set_start_method(method: str) -> None:
    multiprocessing.set_start_method(method, force=True)


def alternate(variants: Mapping[str, Variant], rounds: int) -> dict[str, list[float]]:
    """Measure the variants in turn, each time in a fresh process, so that they do not affect each other.

    Args:
        variants: Picklable functions by name, which return the measured value.
        rounds: Number of measurements of each variant.
    """
    results: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(rounds):
        for name, measure in variants.items():
            with fresh_process() as pool:
                value = pool.submit(measure).result()
            results[name].append(value)
            rich.print(f"[dim]round {index + 1}/{rounds}  {name}: {show(value)}[/dim]", flush=True)
    return results


def show(value: float) -> str:
    """Format a value with four significant digits, or as an integer from 1,000."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def report(name: str, settings: Settings, unit: str, results: Mapping[str, Sequence[float]], note: str = "") -> None:
    """Print medians and ratios to the first variant, and write them as JSON and as a bar chart.

    Args:
        name: Name of the benchmark.
        settings: Settings of the benchmark.
        unit: Unit of the values; larger values are better if it ends in `/s`, otherwise smaller ones.
        results: Values of each variant; the first one is the reference.
        note: Caption of the table.
    """
    median = {variant: statistics.median(values) for variant, values in results.items()}
    first = next(iter(median.values()))
    speedup = {name: value / first if unit.endswith("/s") else first / value for name, value in median.items()}
    table = Table(title=f"{name}, {'real data' if settings.full else 'synthetic images'}", caption=note or None)
    for column in ("", f"median [{unit}]", "minimum", "maximum", "speedup"):
        table.add_column(column, justify="right" if column else "left")
    for variant, values in results.items():
        row = (median[variant], min(values), max(values))
        table.add_row(variant, *map(show, row), f"{speedup[variant]:.2f}")
    rich.print(table)
    path = settings.out / f"{name}{'-full' if settings.full else ''}.json"
    content: dict[str, Any] = {"unit": unit, "median": median, "times_as_fast": speedup, "all": dict(results)}
    content |= {"note": note, "machine": machine(), "full": settings.full}
    write_text(path, json.dumps(content, indent=2) + "\n")
    _draw(path.with_suffix(".png"), f"{name}: {unit}", median, speedup)
    rich.print(f"[dim]{path}, {path.with_suffix('.png').name}[/dim]\n")


def machine() -> dict[str, Any]:
    """Return the hardware and the PyTorch version of the measurements."""
    import torch

    from pneumo.common.hardware import count_cores

    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        cpu = next((x.split(":")[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")), cpu)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": count_cores(), "gpu": gpu, "torch": str(torch.__version__)}


def _draw(path: Path, title: str, median: Mapping[str, float], speedup: Mapping[str, float]) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.5 * len(median)), layout="constrained")
    names = list(median)[::-1]
    colors = ["#0072B2" if "pneumo" in name else "#999999" for name in names]
    bars = axes.barh(names, [median[name] for name in names], color=colors, height=0.65)
    labels = [f"{show(median[name])}  ({speedup[name]:.3g}x)" for name in names]
    axes.bar_label(bars, labels, padding=4, fontsize=10)
    axes.set_xlim(right=1.25 * max(median.values()))
    axes.set_title(title, fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
