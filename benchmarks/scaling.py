"""Time and peak memory of index, splits and cache look-up by the number of images.

    python benchmarks/scaling.py            1,000 to 100,000 images
    python benchmarks/scaling.py --full     10,000 to 1,000,000 images, simulated by one-byte files

Each size runs in a separate process. `growth` is the exponent between the smallest and the largest size: 1 is linear.
"""

import json
import math
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import rich
from rich.table import Table

from pneumo.common.files import atomic_path, write_text

CLASSES = ["NORMAL", "PNEUMONIA"]


def write_tree(root: Path, images: int) -> None:
    """Write one-byte files with realistic names: 85 % train, 5 % val, 10 % test; two images per patient."""
    number = 0
    for split, fraction in (("train", 0.85), ("val", 0.05), ("test", 0.1)):
        folders = {kind: root / split / kind for kind in CLASSES}
        for folder in folders.values():
            folder.mkdir(parents=True)
        for _ in range(round(images * fraction)):
            number += 1
            patient = number // 2
            if patient % 4 == 0:
                path = folders["NORMAL"] / f"IM-{patient:07d}-{number:07d}.jpeg"
            else:
                path = folders["PNEUMONIA"] / f"person{patient}_{'bacteria' if patient % 2 else 'virus'}_{number}.jpeg"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, b".")
            os.close(descriptor)


def measure(root: Path) -> dict[str, float]:
    """Return the seconds of each step and the peak memory in GiB without that of imports."""
    from pneumo.data.image_cache import content_hash
    from pneumo.data.index import data_hash, index_radiographs
    from pneumo.data.splits import split_radiographs

    unit = 2**30 if sys.platform == "darwin" else 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    measured: dict[str, float] = {}

    def timed(name: str, work: Any) -> Any:  # noqa: ANN401 (any result)
        started = time.perf_counter()
        result = work()
        measured[name] = time.perf_counter() - started
        return result

    index = timed("index [s]", lambda: index_radiographs(root, CLASSES))
    timed("split=official [s]", lambda: split_radiographs(index, "official", 0.1, 0))
    timed("split=patient [s]", lambda: split_radiographs(index, "patient", 0.1, 0))
    timed("data hash [s]", lambda: data_hash(index))
    measured["index and split [GiB]"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit - before
    with tempfile.TemporaryDirectory() as cache:
        timed("contents, cold [s]", lambda: content_hash(root, index, Path(cache)))
        timed("cache look-up, warm [s]", lambda: content_hash(root, index, Path(cache)))
    measured["all of it [GiB]"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit - before
    return measured


def draw(path: Path, columns: dict[int, dict[str, float]]) -> None:
    """Plot the seconds of each step against the number of images on log-log axes, with a linear slope."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    sizes = list(columns)
    for name in (name for name in columns[sizes[0]] if name.endswith("[s]")):
        axes.loglog(sizes, [columns[size][name] for size in sizes], marker="o", label=name.removesuffix(" [s]"))
    axes.loglog(sizes, [size / 1e6 for size in sizes], color="#999999", linestyle="--", label="1 µs per image")
    axes.set(xlabel="images", ylabel="seconds")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure three sizes and print the growth of each value."""
    settings = harness.parse(str(__doc__), rounds=1, phantoms=8)
    sizes = (10_000, 100_000, 1_000_000) if settings.full else (1_000, 10_000, 100_000)
    columns: dict[int, dict[str, float]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder, harness.fresh_process() as pool:
            write_tree(Path(folder), size)
            columns[size] = pool.submit(measure, Path(folder)).result()
    table = Table(title="scaling")
    for name in ("", *(f"{size:,} images" for size in sizes), "growth"):
        table.add_column(name, justify="right" if name else "left")
    for name in columns[sizes[0]]:
        values = [columns[size][name] for size in sizes]
        growth = math.log(max(values[-1], 1e-9) / max(values[0], 1e-9)) / math.log(sizes[-1] / sizes[0])
        table.add_row(name, *(f"{value:.3g}" for value in values), f"{growth:.2f}")
    rich.print(table)
    path = settings.out / f"scaling{'-full' if settings.full else ''}.json"
    write_text(path, json.dumps({"images": columns, "machine": harness.machine()}, indent=2) + "\n")
    draw(path.with_suffix(".png"), columns)
    rich.print(f"[dim]{path}, {path.with_suffix('.png').name}[/dim]")


if __name__ == "__main__":
    main()
