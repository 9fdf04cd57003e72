"""Duration of a sweep over three optimizers on a frozen backbone: sweep.py and plain PyTorch loops over ImageFolder.

    python benchmarks/frozen_sweep.py             a few phantoms, three epochs: two minutes on two cores
    PNEUMO_DATA_ROOT=FOLDER python benchmarks/frozen_sweep.py --full

The plain loop runs the backbone in each epoch. One epoch of training and validation is measured and multiplied by the
number of epochs. The sum of worker start, epochs and test is multiplied by the number of optimizers. The loop with
cached features runs the backbone once, keeps its features in memory and trains three heads on them. pneumo's duration
is that of the whole command, including the start of Python.
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
    """Plain PyTorch: a frozen backbone in evaluation mode, a new head and a loader for each split."""

    def __init__(self, root: Path, size: int, channels_last: bool) -> None:
        """Build the network and the loaders, whose workers are persistent."""
        from pneumo.common.hardware import count_cores

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        backbone, head = plain.split_head(plain.network("timm/tf_efficientnet_lite0", size, plain.LITE0_WEIGHTS))
        self.backbone = backbone.to(self.device).to(memory_format=self.layout)
        self.head = head.to(self.device)
        self.loaders = {
            split: plain.loader(plain.folder(root / split, size), count_cores(), shuffle=split == "train")
            for split in ("train", "val", "test")
        }

    def features(self, image: Tensor) -> Tensor:
        """Compute the backbone's features of a batch."""
        image = image.to(self.device, non_blocking=True, memory_format=self.layout)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            features: Tensor = self.backbone(image)
        return features.float()

    def step(self, features: Tensor, label: Tensor, optimizer: Optimizer | None) -> Tensor:
        """Compute the head's loss on a batch; with an optimizer, also update the head."""
        loss = nn.functional.cross_entropy(self.head(features), label.to(self.device, non_blocking=True))
        if optimizer is not None:
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        return loss.detach()


def plain_sweep(root: Path, size: int, epochs: int, channels_last: bool) -> float:
    """Return the seconds of a sweep that runs the backbone in each epoch, extrapolated from one measured epoch."""
    model = Plain(root, size, channels_last)
    optimizer = head_training.make("sgd", model.head)

    def epoch(split: str) -> float:
        started = time.perf_counter()
        active = optimizer if split == "train" else None
        total = sum(model.step(model.features(image), label, active) for image, label in model.loaders[split])
        assert torch.as_tensor(total).isfinite()
        return time.perf_counter() - started

    started = time.perf_counter()
    for data in model.loaders.values():
        next(iter(data))  # starts the workers
    start = time.perf_counter() - started
    return len(OPTIMIZERS) * (start + epochs * (epoch("train") + epoch("val")) + epoch("test"))


def plain_features(root: Path, size: int, epochs: int) -> float:
    """Return the measured seconds of a sweep that computes features once and keeps them in memory."""
    started = time.perf_counter()
    model = Plain(root, size, channels_last=True)
    features: dict[str, Tensor] = {}
    labels: dict[str, Tensor] = {}
    for split, loader in model.loaders.items():
        batches = [(model.features(image), label) for image, label in loader]
        features[split], labels[split] = (torch.cat(parts) for parts in zip(*batches, strict=True))
    for name in OPTIMIZERS:
        model.head.reset_parameters()
        optimizer = head_training.make(name, model.head)
        for _ in range(epochs):
            for index in torch.split(torch.randperm(len(labels["train"])), head_training.BATCH):
                model.step(features["train"][index], labels["train"][index], optimizer)
            model.step(features["val"], labels["val"], None).item()
        model.step(features["test"], labels["test"], None).item()
    return time.perf_counter() - started


def pneumo_sweep(root: Path, size: int, epochs: int, cache: Path | None) -> float:
    """Return the seconds of the command `sweep.py`; without `cache` it starts with empty caches."""
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
    """Measure all sweeps, including one on warm caches."""
    settings = harness.parse(str(__doc__), rounds=1)
    size, epochs = (224, 20) if settings.full else (96, 3)
    with tempfile.TemporaryDirectory() as cache:
        pneumo_sweep(settings.root, size, epochs, Path(cache))  # warms the cache
        variants: dict[str, harness.Variant] = {
            "plain loop": partial(plain_sweep, settings.root, size, epochs, False),
            "plain loop, channels last": partial(plain_sweep, settings.root, size, epochs, True),
            "plain loop, cached features": partial(plain_features, settings.root, size, epochs),
            "pneumo, cold caches": partial(pneumo_sweep, settings.root, size, epochs, None),
            "pneumo, warm caches": partial(pneumo_sweep, settings.root, size, epochs, Path(cache)),
        }
        measured = harness.alternate(variants, settings.rounds)
    note = f"EfficientNet-Lite0, 3 optimizers x {epochs} epochs; plain loop: one epoch measured and multiplied"
    harness.report("frozen_sweep", settings, "s", measured, note)


if __name__ == "__main__":
    main()
