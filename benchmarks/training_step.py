"""A training step: Lightning's against a raw loop with the same optimisations, and XrayChestNet against textbook order.

    python benchmarks/training_step.py            64 pixels, four networks' steps: a minute on two cores
    python benchmarks/training_step.py --full     224 pixels

The data are one batch in memory, again and again, in float32, with no callbacks, so that only the step is compared. In
textbook order XrayChestNet does convolution, batch normalisation, ReLU, pooling; pneumo pools first, which leaves a
quarter of the element-wise work, and keeps memory between steps.
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
from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import TrainingOptions

BATCH = 32


def batch(size: int) -> dict[str, Tensor]:
    """Draw a batch."""
    image = torch.randint(0, 256, (BATCH, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"input": image, "label": torch.arange(BATCH) % 2, "index": torch.arange(BATCH)}


class Endless:
    """A loader that gives one batch again and again."""

    def __init__(self, one: dict[str, Tensor], steps: int) -> None:
        """Take the batch and how often to give it."""
        self.one, self.steps = one, steps

    def __len__(self) -> int:
        """Give the number of steps."""
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Give the batches."""
        return itertools.repeat(self.one, self.steps)


class Clock(Callback):
    """Takes the time at the beginning of each step."""

    def __init__(self) -> None:
        """Start with no step."""
        self.times: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Take it."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def build(name: str, size: int) -> tuple[Classifier, torch.device]:
    """Build a classifier as pneumo does."""
    torch.manual_seed(0)
    hardware = choose_hardware("auto", "32-true", False)
    set_up_process(hardware)
    training = TrainingOptions(optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-5, fused=True))
    classifier = Classifier(name, ["a", "b"], size, training=training)
    layout = choose_memory_format(hardware.accelerator, frozen=False, depthwise=classifier.backbone.depthwise)
    classifier.backbone.to(memory_format=layout)
    return classifier, torch.device(hardware.accelerator)


def rate(times: list[float]) -> float:
    """Give images per second from the times at which steps began; the first two are warming up."""
    return BATCH / statistics.median(after - before for before, after in itertools.pairwise(times[2:]))


def lightning(name: str, size: int, steps: int) -> float:
    """Measure Lightning's step."""
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
    trainer.fit(classifier, Endless(batch(size), steps + 3))
    return rate(clock.times)


def loop(step: Callable[[], None], steps: int) -> float:
    """Measure a raw loop."""
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
    return loop(stepper(network, batch(size), device), steps)


def stepper(network: nn.Module, one: dict[str, Tensor], device: torch.device) -> Callable[[], None]:
    """Give a function that takes one training step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        image, label = one["input"].to(device, non_blocking=True), one["label"].to(device, non_blocking=True)
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(network(image), label))
        optimizer.step()

    return step


def textbook(size: int, steps: int) -> float:
    """Measure XrayChestNet in textbook order, with nothing else done for speed."""
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
    one = batch(size)
    image, label = (one["input"].float() / 255).expand(-1, 3, -1, -1).contiguous(), one["label"]

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
        sides: dict[str, harness.Side] = {
            "raw loop": partial(raw, name, size, steps),
            "pneumo's step in Lightning": partial(lightning, name, size, steps),
        }
        if name.startswith("pneumo"):
            sides = {"textbook order, eager": partial(textbook, size, steps), **sides}
        found = harness.alternate(sides, settings.rounds)
        harness.report(
            f"training_step-{name.split('/')[1]}", settings, "images/s", found, f"batch {BATCH}, {size} pixels"
        )


if __name__ == "__main__":
    main()
