"""Effects of changes to experiment=robust, in a Plackett-Burman design of 24 runs without the official test images.

python benchmarks/recipe.py --full --adults FOLDER
python benchmarks/recipe.py --full --adults FOLDER --settings model=efficientnet_lite1 augment.noise=0.1

With --settings, three runs with these settings are measured instead, with their ensemble and the mean of their weights.

Each run trains and is measured on three development sets: held-out ranges of patient numbers, corrupted versions of
them, and adults of another source. FOLDER contains their labels.csv with the columns file, label and view (AP or PA).
PNEUMO_DATA_ROOT is the Kermany data. A run takes 20 minutes on two CPU cores; the same command resumes. Without --full,
two runs on synthetic images show that everything works.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rich
from combinations import combine
from development_sets import SETS, Data, measure
from rich.table import Table
from scipy.special import logit
from scipy.stats import t

from pneumo.common.files import write_text
from pneumo.common.plain_data import format_rows, hash_plain

Floats = npt.NDArray[np.float64]
Levels = tuple[int, ...]
FACTORS: dict[str, tuple[str, ...]] = {  # settings that each factor changes
    "noise": ("augment.noise=0.1",),
    "tone": ("augment.brightness=0.25", "augment.contrast=0.4", "augment.gamma=1"),
    "degradation": ("augment.blur=2", "augment.resample=0.7", "augment.jpeg=10"),
    "share": ("augment.share=1",),
    "field of view": ("augment.crop=0.5",),
    "geometry": ("augment.rotation=20", "augment.zoom=0.25", "augment.stretch=0.6"),
    "border": ("augment.border=0.15",),
    "histogram": ("data.histogram=equalize",),
}
_GENERATOR = (1, 1, -1, 1, 1, 1, -1, -1, -1, 1, -1)  # Plackett and Burman 1946, 12 runs
_NAME = re.compile(r"((?:NORMAL\d+-)?IM-|person)(\d+)")


def design() -> dict[int, Levels]:
    """Return the levels of the factors, -1 or 1, by seed: the unchanged recipe twice, and 23 runs with changes.

    They are the 12 runs of a Plackett-Burman design and their mirror images, which make main effects independent of
    interactions of two factors.
    """
    first = [_GENERATOR[-i:] + _GENERATOR[:-i] for i in range(11)] + [(-1,) * 11]
    rows = [row[: len(FACTORS)] for row in (*first, *(tuple(-level for level in row) for row in first))]
    unchanged = (-1,) * len(FACTORS)
    return {0: unchanged, 1: unchanged} | {seed: row for seed, row in enumerate(rows, 2) if row != unchanged}


def overrides(levels: Levels) -> list[str]:
    """Return the settings that the factors at level 1 change."""
    chosen = (settings for settings, level in zip(FACTORS.values(), levels, strict=True) if level > 0)
    return [setting for settings in chosen for setting in settings]


def write_table(train: Path, path: Path) -> None:
    """Write the table of the training images; the lowest and highest tenth of the numbers of each prefix are `test`."""
    images = [(file, *split_name(file.name)) for file in sorted(train.glob("*/*"))]
    numbers: dict[str, set[int]] = defaultdict(set)
    for _, prefix, digits in images:
        numbers[prefix].add(int(digits))
    held_out: dict[str, set[int]] = {}
    for prefix, found in numbers.items():
        ordered, tenth = sorted(found), max(1, round(len(found) / 10))
        held_out[prefix] = {*ordered[:tenth], *ordered[-tenth:]}
    rows: list[Sequence[object]] = [("file", "label", "patient", "split")]
    for file, prefix, digits in images:
        split = "test" if int(digits) in held_out[prefix] else "train"
        rows.append((file.relative_to(train), file.parent.name, prefix + digits, split))
    write_text(path, format_rows(rows))


def split_name(name: str) -> tuple[str, str]:
    """Return the prefix and the digits of the patient number of a file name such as IM-0115-0001.jpeg."""
    match = _NAME.match(name)
    if match is None:
        raise ValueError(f"{name} is not a name of the Kermany data")
    return match[1], match[2]


def train_run(folder: Path, data: Data, seed: int, changes: Sequence[str], short: bool) -> Path:
    """Train a run unless it is finished, resume it if it was interrupted, and return its checkpoint."""
    checkpoints = folder / "checkpoints"
    if not (folder / "results.json").is_file():
        last = checkpoints / "last.ckpt"
        start = f"ckpt_path={last}" if last.is_file() else f"hydra.run.dir={folder}"
        small = ("model=xraychestnet", "data.image_size=64", "epochs=1") if short else ("model=efficientnet_lite0",)
        files = (f"data.table={data.table}", f"data.root={data.train}", f"paths.cache_dir={folder.parent / 'cache'}")
        settings = ("experiment=robust", "data=table", *small, *files, f"seed={seed}", "figures=false", *changes)
        subprocess.run([sys.executable, "train.py", *settings, start], check=True)
    return checkpoints / "best.ckpt"


def criterion(values: Mapping[str, float]) -> float:
    """Return the mean of the logits of the AUROCs of all sets; 1 counts as 0.9999."""
    return float(np.mean([logit(min(values[name], 0.9999)) for name in SETS if name in values]))


def effects(levels: npt.ArrayLike, values: Floats) -> dict[str, tuple[float, float, float, float]]:
    """Fit a linear regression of values, (runs,), on factor levels, (runs, factors).

    Returns:
        Effect of the change from -1 to 1, its standard error, and its 95 % interval, by factor.
    """
    matrix = np.column_stack([np.ones(len(values)), np.asarray(levels) / 2])
    inverse = np.linalg.inv(matrix.T @ matrix)
    coefficients = inverse @ matrix.T @ values
    freedom = len(values) - matrix.shape[1]
    deviation = np.sqrt(((values - matrix @ coefficients) ** 2).sum() / freedom)
    errors, quantile = deviation * np.sqrt(np.diag(inverse)), float(t.ppf(0.975, freedom))
    rows = zip(FACTORS, coefficients[1:].tolist(), errors[1:].tolist(), strict=True)
    return {name: (value, error, value - quantile * error, value + quantile * error) for name, value, error in rows}


def run_design(folder: Path, data: Data, short: bool) -> None:
    """Train and measure the runs of the design, then print and write their values and the effects."""
    runs = {seed: row for seed, row in design().items() if not short or seed < 2}
    found = [run_once(folder / f"seed-{seed:02d}", data, seed, overrides(row), short)[1] for seed, row in runs.items()]
    labels = [(str(seed), *map(str, levels)) for seed, levels in runs.items()]
    show("Runs", [("seed", *FACTORS, *found[0]), *tabulate(labels, found)], folder / "runs.csv")
    if not short:
        show("Effects", tabulate_effects(list(runs.values()), found), folder / "effects.csv")


def run_settings(folder: Path, data: Data, settings: Sequence[str], short: bool) -> None:
    """Train and measure three runs with the same settings, their ensemble and the mean of their weights."""
    folder = folder / hash_plain(sorted(settings))
    runs = [run_once(folder / f"seed-{seed}", data, seed, settings, short) for seed in range(2 if short else 3)]
    combined = combine([checkpoint for checkpoint, _ in runs], folder)
    names = [f"seed {seed}" for seed in range(len(runs))] + list(combined)
    found = [values for _, values in runs] + [measure_once(path, data) for path in combined.values()]
    rows = tabulate([(name,) for name in names], found)
    show(" ".join(settings), [("run", *found[0]), *rows], folder / "runs.csv")


def run_once(folder: Path, data: Data, seed: int, changes: Sequence[str], short: bool) -> tuple[Path, dict[str, float]]:
    """Train and measure a run unless this is done; return its checkpoint and its values."""
    checkpoint = train_run(folder, data, seed, changes, short)
    return checkpoint, measure_once(checkpoint, data)


def measure_once(checkpoint: Path, data: Data) -> dict[str, float]:
    """Measure a checkpoint unless the file next to it contains its values, and return them with the criterion."""
    path = checkpoint.with_suffix(".measured.json")
    if not path.is_file():
        values = measure(checkpoint, data)
        write_text(path, json.dumps({"criterion": criterion(values), **values}, indent=2) + "\n")
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return found


def tabulate(labels: Sequence[Sequence[str]], measured: Sequence[Mapping[str, float]]) -> list[Sequence[str]]:
    """Return one row per run with its labels and values."""
    return [
        (*label, *(f"{value:.4f}" for value in values.values())) for label, values in zip(labels, measured, strict=True)
    ]


def tabulate_effects(levels: Sequence[Levels], measured: Sequence[Mapping[str, float]]) -> list[Sequence[str]]:
    """Return one row per factor and value with the result of `effects`, after a header."""
    rows: list[Sequence[str]] = [("factor", "value", "effect", "standard error", "low", "high")]
    for name in measured[0]:
        fitted = effects(levels, np.array([values[name] for values in measured]))
        rows += [(factor, name, *(f"{value:.4f}" for value in found)) for factor, found in fitted.items()]
    return rows


def show(title: str, rows: Sequence[Sequence[str]], path: Path) -> None:
    """Print rows, the first one as header, and write them as a CSV file."""
    table = Table(*rows[0], title=title)
    for row in rows[1:]:
        table.add_row(*row)
    rich.print(table)
    write_text(path, format_rows(rows))


def main() -> None:
    """Parse the command line and run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="use the data in PNEUMO_DATA_ROOT (default: phantoms)")
    parser.add_argument("--adults", type=Path, help="folder of adults with labels.csv; required with --full")
    parser.add_argument("--settings", nargs="+", help="measure three runs with these changes instead of the design")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="folder (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.full and (arguments.adults is None or "PNEUMO_DATA_ROOT" not in os.environ):
        parser.error("--full requires --adults FOLDER, and the folder of the Kermany data in PNEUMO_DATA_ROOT")
    folder = (arguments.out / ("recipe-full" if arguments.full else "recipe")).absolute()
    root = Path(os.environ["PNEUMO_DATA_ROOT"]) if arguments.full else folder / "phantoms"
    if not arguments.full:
        from pneumo.data.phantoms import write_phantoms

        write_phantoms(root, seed=0, train=200, val=16, test=16)
    data = Data(root.absolute() / "train", folder / "images.csv", arguments.adults)
    write_table(data.train, data.table)
    if arguments.settings:
        run_settings(folder, data, arguments.settings, not arguments.full)
    else:
        run_design(folder, data, not arguments.full)


if __name__ == "__main__":
    main()
