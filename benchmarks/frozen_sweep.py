"""Three optimizers on one frozen backbone: sweep.py with cold caches against a plain PyTorch loop over ImageFolder.

    python benchmarks/frozen_sweep.py             a few phantoms, three epochs: two minutes on two cores
    PNEUMO_DATA_ROOT=FOLDER python benchmarks/frozen_sweep.py --full

The plain loop starts its workers, trains and validates one epoch and tests. The epoch is multiplied by the number of
epochs, and the whole by that of the optimizers: a plain sweep repeats as much. pneumo's side is the whole command, from
Python's start to its end.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import harness
import plain
import torch
from torch import nn

OPTIMIZERS = ("sgd", "adam", "adagrad")
ROOT = Path(__file__).parents[1]


def plain_sweep(root: Path, size: int, epochs: int, channels_last: bool) -> float:
    """Give the seconds of a plain sweep: one epoch measured, multiplied."""
    from pneumo.hardware import count_cores

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    backbone, head = plain.take_out_head(plain.network("timm/tf_efficientnet_lite0", size, plain.LITE0_WEIGHTS))
    backbone.to(device).to(memory_format=layout)
    head.to(device)
    optimizer = torch.optim.SGD(head.parameters(), lr=3e-3, momentum=0.9)
    loaders = {
        split: plain.loader(plain.folder(root / split, size), count_cores(), shuffle=split == "train")
        for split in ("train", "val", "test")
    }

    def epoch(split: str) -> float:
        started = time.perf_counter()
        total = torch.zeros((), device=device)
        for image, label in loaders[split]:
            image = image.to(device, non_blocking=True, memory_format=layout)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                with torch.no_grad():
                    features = backbone(image)
                loss = nn.functional.cross_entropy(head(features), label.to(device, non_blocking=True))
            if split == "train":
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
            total += loss.detach()
        total.item()
        return time.perf_counter() - started

    started = time.perf_counter()
    for data in loaders.values():
        next(iter(data))  # starts its workers, which then outlive the epochs
    start = time.perf_counter() - started
    return len(OPTIMIZERS) * (start + epochs * (epoch("train") + epoch("val")) + epoch("test"))


def pneumo_sweep(root: Path, size: int, epochs: int, cache: Path | None) -> float:
    """Give the seconds of the command `sweep.py`; without a cache it begins with an empty one."""
    with tempfile.TemporaryDirectory() as outputs:
        command = [sys.executable, "sweep.py", "-m", "model=efficientnet_lite0", f"optimizer={','.join(OPTIMIZERS)}"]
        command += [f"data.root={root}", f"data.image_size={size}", f"epochs={epochs}", f"paths.output_dir={outputs}"]
        command += [f"paths.cache_dir={cache}"] if cache else []
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=os.environ)
        seconds = time.perf_counter() - started
        results = [json.loads(path.read_text()) for path in Path(outputs).rglob("results.json")]
    assert len(results) == len(OPTIMIZERS)
    shown = ("optimizer", "test_auroc", "collapsed", "cache_seconds", "train_seconds", "total_seconds")
    for result in results:
        print({name: result[name] for name in shown}, f"{result['peak_memory_bytes'] / 2**30:.2f} GiB")
    return seconds


def main() -> None:
    """Measure both sides, and a second sweep on the caches of the first."""
    settings = harness.parse(str(__doc__), rounds=1)
    size, epochs = (224, 20) if settings.full else (96, 3)
    with tempfile.TemporaryDirectory() as cache:
        pneumo_sweep(settings.root, size, epochs, Path(cache))  # fills it
        sides: dict[str, harness.Side] = {
            "plain loop": partial(plain_sweep, settings.root, size, epochs, False),
            "plain loop, channels last": partial(plain_sweep, settings.root, size, epochs, True),
            "pneumo, cold caches": partial(pneumo_sweep, settings.root, size, epochs, None),
            "pneumo, warm caches": partial(pneumo_sweep, settings.root, size, epochs, Path(cache)),
        }
        found = harness.alternate(sides, settings.rounds)
    note = f"EfficientNet-Lite0, 3 optimizers x {epochs} epochs; plain: one epoch measured and multiplied"
    harness.report("frozen_sweep", settings, "s", found, note)


if __name__ == "__main__":
    main()
