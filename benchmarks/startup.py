"""Startup time of commands.

    python benchmarks/startup.py

Each command runs in a separate process. `import torch, torchvision, lightning` is the baseline of any such program.
"""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import harness

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "import torch, torchvision, lightning": ("-c", "import torch, torchvision, lightning"),
    "import pneumo.training.run": ("-c", "import pneumo.training.run"),
    "train.py --help": ("train.py", "--help"),
    "train.py --cfg job": ("train.py", "--cfg", "job"),
    "pneumo --help": ("-c", "from pneumo.cli import main; main()", "--help"),
}


def seconds(arguments: tuple[str, ...]) -> float:
    """Return the seconds of one command."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure all commands."""
    settings = harness.parse(str(__doc__), rounds=5)
    variants: dict[str, harness.Variant] = {name: partial(seconds, command) for name, command in COMMANDS.items()}
    harness.report("startup", settings, "s", harness.alternate(variants, settings.rounds))


if __name__ == "__main__":
    main()
