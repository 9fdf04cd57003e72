"""Training step: Lightning and an equally optimized raw loop, XrayChestNet and the textbook layer order.

    python benchmarks/training_step.py            64 pixels: a minute on two cores
    python benchmarks/training_step.py --full     224 pixels

All steps use the same batch in memory, in float32 and without callbacks, so that only the step itself is compared. The
textbook order of XrayChestNet's layers is convolution, batch normalization, ReLU, pooling. pneumo pools directly after
the convolution, which leaves a quarter of the element-wise work, and keeps memory allocated between steps.
"""

import itertools
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import harness
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from pneumo.common.hardware import choose_hardware, choose_memory_format, set_up_process
from pneumo.common.input_format import InputFormat
from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import TrainingOptions

BATCH = 32


def batch(size: int) -> dict[str, Tensor]:
    """Build a random batch."""
    image = torch.randint(0, 256, (BATCH, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"input": image, "label": torch.arange(BATCH) % 2, "index": torch.arange(BATCH)}


class RepeatedBatch:
    """A loader that repeats one batch."""

    def __init__(self, repeated: dict[str, Tensor], steps: int) -> None:
        """Store the batch and the number of repetitions."""
        self.repeated, self.steps = repeated, steps

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches."""
        return itertools.repeat(self.repeated, self.steps)


class Clock(Callback):
    """A callback that records the time at the start of each step."""

    def __init__(self) -> None:
        """Initialize an empty record."""
        self.times: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Record the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def build(name: str, size: int) -> tuple[Classifier, torch.device]:
    """Build a classifier with pneumo's settings."""
    torch.manual_seed(0)
    hardware = choose_hardware("auto", "32-true", False)
    set_up_process(hardware)
    training = TrainingOptions(optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-5, fused=True))
    classifier = Classifier(name, ["a", "b"], InputFormat(size), training=training)
    layout = choose_memory_format(hardware.accelerator, frozen=False, depthwise=classifier.backbone.depthwise)
    classifier.backbone.to(memory_format=layout)
    return classifier, torch.device(hardware.accelerator)


def rate(times: list[float]) -> float:
    """Compute images per second from the start times of the steps; the first two steps are warm-up."""
    return BATCH / statistics.median(end - start for start, end in itertools.pairwise(times[2:]))


def lightning(name: str, size: int, steps: int) -> float:
    """Measure the training step in Lightning."""
    classifier, device = build(name, size)
    clock = Clock()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    trainer = Trainer(
        accelerator=device.type,
        precision="32-true",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock],
    )
    trainer.fit(classifier, RepeatedBatch(batch(size), steps + 3))
    return rate(clock.times)


def loop(step: Callable[[], None], steps: int) -> float:
    """Measure a training step in a raw loop."""
    times = []
    for _ in range(steps + 3):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        step()
    return rate(times)


def raw(name: str, size: int, steps: int) -> float:
    """Measure the same network in a raw loop."""
    classifier, device = build(name, size)
    network = nn.Sequential(classifier.backbone, classifier.head).to(device).train()
    return loop(make_step(network, batch(size), device), steps)


def make_step(network: nn.Module, data: dict[str, Tensor], device: torch.device) -> Callable[[], None]:
    """Build a function that performs one training step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        image, label = data["input"].to(device, non_blocking=True), data["label"].to(device, non_blocking=True)
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(network(image), label))
        optimizer.step()

    return step


def textbook(size: int, steps: int) -> float:
    """Measure XrayChestNet in textbook layer order, without any optimization."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layers: list[nn.Module] = []
    side = size
    for before, after, kernel in ((3, 10, 5), (10, 256, 3), (256, 512, 3)):
        layers += [nn.Conv2d(before, after, kernel), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        side = (side - kernel + 1) // 2
    layers += [nn.Flatten(), nn.Linear(side * side * 512, 50), nn.ReLU(), nn.Dropout(0.2), nn.Linear(50, 2)]
    network = nn.Sequential(*layers).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5)
    data = batch(size)
    image, label = (data["input"].float() / 255).expand(-1, 3, -1, -1).contiguous(), data["label"]

    def step() -> None:
        optimizer.zero_grad()
        output = network(image.to(device, non_blocking=True))
        torch.autograd.backward(nn.functional.cross_entropy(output, label.to(device, non_blocking=True)))
        optimizer.step()

    return loop(step, steps)


def main() -> None:
    """Measure XrayChestNet and a fine-tuned EfficientNet-Lite0."""
    settings = harness.parse(str(__doc__))
    size, steps = (224, 5) if settings.full else (64, 12)
    for name in ("pneumo/xraychestnet", "timm/tf_efficientnet_lite0"):
        variants: dict[str, harness.Variant] = {
            "raw loop": partial(raw, name, size, steps),
            "pneumo's step in Lightning": partial(lightning, name, size, steps),
        }
        if name.startswith("pneumo"):
            variants = {"textbook order, eager": partial(textbook, size, steps), **variants}
        results = harness.alternate(variants, settings.rounds)
        harness.report(
            f"training_step-{name.split('/')[1]}", settings, "images/s", results, f"batch {BATCH}, {size} pixels"
        )


if __name__ == "__main__":
    main()
