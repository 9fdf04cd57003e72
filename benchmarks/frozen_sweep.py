"""Three optimizers on one frozen backbone: sweep.py with cold caches against a plain PyTorch loop over ImageFolder.

    python benchmarks/frozen_sweep.py             a few phantoms, three epochs: two minutes on two cores
    PNEUMO_DATA_ROOT=FOLDER python benchmarks/frozen_sweep.py --full

The plain loop starts its workers, trains and validates one epoch and tests. The epoch is multiplied by the number of
epochs, and the whole by that of the optimizers: a plain sweep repeats as much. `features kept` is what somebody writes
who knows that a frozen backbone need run but once: one pass into memory, then three heads. pneumo's side is the whole
command, from Python's start to its end.
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
import head_training
import plain
import torch
from head_training import OPTIMIZERS
from torch import Tensor, nn
from torch.optim import Optimizer

ROOT = Path(__file__).parents[1]


class Plain:
    """The plain side: a frozen backbone in evaluation mode, a new head, and a loader for each split."""

    def __init__(self, root: Path, size: int, channels_last: bool) -> None:
        """Build the network and the loaders, whose workers outlive the epochs."""
        from pneumo.common.hardware import count_cores

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        backbone, head = plain.take_out_head(plain.network("timm/tf_efficientnet_lite0", size, plain.LITE0_WEIGHTS))
        self.backbone = backbone.to(self.device).to(memory_format=self.layout)
        self.head = head.to(self.device)
        self.loaders = {
            split: plain.loader(plain.folder(root / split, size), count_cores(), shuffle=split == "train")
            for split in ("train", "val", "test")
        }

    def features(self, image: Tensor) -> Tensor:
        """Run the backbone on a batch."""
        image = image.to(self.device, non_blocking=True, memory_format=self.layout)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            features: Tensor = self.backbone(image)
        return features.float()

    def step(self, features: Tensor, label: Tensor, optimizer: Optimizer | None) -> Tensor:
        """Take a step of the head, or only measure its loss."""
        loss = nn.functional.cross_entropy(self.head(features), label.to(self.device, non_blocking=True))
        if optimizer is not None:
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        return loss.detach()


def plain_sweep(root: Path, size: int, epochs: int, channels_last: bool) -> float:
    """Give the seconds of a sweep that runs the backbone in each epoch: one epoch measured, multiplied."""
    side = Plain(root, size, channels_last)
    optimizer = head_training.make("sgd", side.head)

    def epoch(split: str) -> float:
        started = time.perf_counter()
        chosen = optimizer if split == "train" else None
        total = sum(side.step(side.features(image), label, chosen) for image, label in side.loaders[split])
        assert torch.as_tensor(total).isfinite()
        return time.perf_counter() - started

    started = time.perf_counter()
    for data in side.loaders.values():
        next(iter(data))  # starts its workers
    start = time.perf_counter() - started
    return len(OPTIMIZERS) * (start + epochs * (epoch("train") + epoch("val")) + epoch("test"))


def plain_features(root: Path, size: int, epochs: int) -> float:
    """Give the seconds of a sweep that keeps the features of one pass in memory, all of it measured."""
    started = time.perf_counter()
    side = Plain(root, size, channels_last=True)
    features_of: dict[str, Tensor] = {}
    labels: dict[str, Tensor] = {}
    for split, loader in side.loaders.items():
        batches = [(side.features(image), label) for image, label in loader]
        features_of[split], labels[split] = (torch.cat(parts) for parts in zip(*batches, strict=True))
    for name in OPTIMIZERS:
        side.head.reset_parameters()
        optimizer = head_training.make(name, side.head)
        for _ in range(epochs):
            for index in torch.split(torch.randperm(len(labels["train"])), head_training.BATCH):
                side.step(features_of["train"][index], labels["train"][index], optimizer)
            side.step(features_of["val"], labels["val"], None).item()
        side.step(features_of["test"], labels["test"], None).item()
    return time.perf_counter() - started


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
            "plain, features kept": partial(plain_features, settings.root, size, epochs),
            "pneumo, cold caches": partial(pneumo_sweep, settings.root, size, epochs, None),
            "pneumo, warm caches": partial(pneumo_sweep, settings.root, size, epochs, Path(cache)),
        }
        found = harness.alternate(sides, settings.rounds)
    note = f"EfficientNet-Lite0, 3 optimizers x {epochs} epochs; plain loop: one epoch measured and multiplied"
    harness.report("frozen_sweep", settings, "s", found, note)


if __name__ == "__main__":
    main()
