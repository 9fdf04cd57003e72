"""Training time of a head on cached features, 20 epochs at batch size 32, compared with raw PyTorch loops.

    python benchmarks/head_training.py            1,304 x 1,280 features
    python benchmarks/head_training.py --full     5,216 x 1,280 features, as in the study

pneumo: Lightning's fit with all components of a run, namely metrics, validation, TensorBoard, log and checkpoints.
Raw loops: training, the loss of each epoch and the validation loss. One indexes a tensor, which is the fastest
implementation; one uses a DataLoader with a TensorDataset, which is the most common. The features are random. Each
measurement follows a short training, which excludes one-time costs such as imports.
"""

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import harness
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, Optimizer
from torch.utils.data import DataLoader, TensorDataset

WIDTH, BATCH, EPOCHS = 1280, 32, 20
JOB_SETTINGS = ("hydra.job.num=0", "hydra.job.id=0", "hydra.runtime.output_dir=outputs")  # set by Hydra in jobs
OPTIMIZERS = ("sgd", "adam", "adagrad")


def features(count: int) -> tuple[Tensor, Tensor]:
    """Draw features and labels."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, WIDTH, generator=generator), (torch.rand(count, generator=generator) < 0.74).long()


def make(name: str, head: nn.Linear) -> Optimizer:
    """Build an optimizer with the settings of conf/optimizer."""
    if name == "sgd":
        return SGD(head.parameters(), lr=0.003, momentum=0.9, fused=True)
    if name == "adam":
        return Adam(head.parameters(), lr=0.001, fused=True)
    return Adagrad(head.parameters(), lr=0.01)


def warmed(train: Callable[[int, int], float], count: int) -> float:
    """Measure a training after a short one, which performs one-time work such as imports."""
    train(BATCH, 1)
    return train(count, EPOCHS)


def raw(name: str, with_loader: bool, count: int, epochs: int) -> float:
    """Return the duration of a raw loop in seconds."""
    x, y = features(count)
    held_out, held_out_label = features(16)
    head = nn.Linear(WIDTH, 2)
    optimizer = make(name, head)
    loader = DataLoader(TensorDataset(x, y), BATCH, shuffle=True)

    def step(batch: Tensor, label: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head(batch), label)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.detach()

    started = time.perf_counter()
    for _ in range(epochs):
        total = torch.zeros(())
        if with_loader:
            for batch, label in loader:
                total += step(batch, label)
        else:
            for index in torch.split(torch.randperm(count), BATCH):
                total += step(x[index], y[index])
        with torch.inference_mode():
            total.item(), nn.functional.cross_entropy(head(held_out), held_out_label).item()
    return time.perf_counter() - started


def pneumo(name: str, count: int, epochs: int) -> float:
    """Return the duration of Lightning's fit in seconds, called as in training.run."""
    import logging

    import numpy as np
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from PIL import Image

    from pneumo.config.resolvers import register_resolvers
    from pneumo.training.components import build
    from pneumo.training.feature_cache import serve_arrays

    logging.basicConfig(level=logging.INFO, filename=os.devnull)
    register_resolvers()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        for split, images in (("train", count), ("val", 16), ("test", 16)):
            for kind in ("NORMAL", "PNEUMONIA"):
                (root / split / kind).mkdir(parents=True)
                for index in range(images // 2):
                    Image.new("L", (8, 8)).save(root / split / kind / f"{index}.png")
        with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
            overrides = ["model=efficientnet_lite0", "model.weights=null", f"optimizer={name}", f"data.root={root}"]
            overrides += ["data.image_size=32", f"epochs={epochs}", f"paths.output_dir={folder}", "trainer=cpu"]
            cfg = compose("train", [*overrides, f"paths.run_dir={folder}/run", *JOB_SETTINGS], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        components = build(cfg)
        x, _ = features(len(components.datamodule.radiographs))
        serve_arrays(components, np.asarray(x), None)
        started = time.perf_counter()
        components.trainer.fit(components.classifier, datamodule=components.datamodule)
        seconds = time.perf_counter() - started
        assert (Path(folder) / "run" / "checkpoints" / "last.ckpt").is_file()
    return seconds


def main() -> None:
    """Run the benchmark for each optimizer."""
    settings = harness.parse(str(__doc__), rounds=5)
    count = 5216 if settings.full else 1304
    for name in OPTIMIZERS:
        variants: dict[str, harness.Variant] = {
            "raw loop, indexed tensor": partial(warmed, partial(raw, name, False), count),
            "raw loop, DataLoader": partial(warmed, partial(raw, name, True), count),
            "pneumo, whole training": partial(warmed, partial(pneumo, name), count),
        }
        results = harness.alternate(variants, settings.rounds)
        harness.report(
            f"head_training-{name}", settings, "s", results, f"{count:,} x {WIDTH:,} features, {EPOCHS} epochs"
        )


if __name__ == "__main__":
    main()
