"""Training of the lung locator on phantoms, once per cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pneumo.common.array_cache import Array, Recipe, find_or_build
from pneumo.common.terminal import track
from pneumo.data.lung_phantoms import LUNG_PHANTOMS_VERSION, draw_lung_phantom
from pneumo.models.lung_locator import LungLocator, standardize

_VERSION = 1  # increase it when the network or its training changes
_DRAWING, _TRAINING = "Drawing phantoms of lungs", "Training the lung locator"


@dataclass(frozen=True)
class LungTraining:
    """Settings of the training; the defaults take three minutes on one core."""

    phantoms: int = 4000
    steps: int = 900
    batch_size: int = 16
    seed: int = 0


def load_locator(cache: Path, settings: LungTraining = LungTraining()) -> LungLocator:
    """Load the trained locator from the cache folder; train it first if it is missing.

    Among concurrent processes, one trains and the others wait.

    Raises:
        CacheError: The disk is full or cannot be written.
    """
    locator = LungLocator()
    provenance = {"version": [_VERSION, LUNG_PHANTOMS_VERSION], **asdict(settings)}
    # A row of weights rather than a file of tensors: the array cache locks, lists and deletes it, and it runs no code.
    recipe = Recipe("locators", provenance, (1, sum(map(torch.numel, _weights(locator)))), "float32", "Lung locator")

    def train(start: int) -> Iterator[Array]:
        weights = torch.cat([weight.flatten() for weight in _weights(train_locator(settings))])
        return iter([weights.numpy()[None]])

    row = torch.from_numpy(np.array(find_or_build(cache, recipe, train)[0]))
    for weight in _weights(locator):
        weight.copy_(row[: weight.numel()].view_as(weight))
        row = row[weight.numel() :]
    return locator


def train_locator(settings: LungTraining) -> LungLocator:
    """Train a locator on phantoms; equal settings give identical weights on a CPU, regardless of its cores."""
    with _reproducible(settings.seed):
        locator = LungLocator()
        network = locator.network.train().requires_grad_()
        images, hulls = _draw_phantoms(settings)
        random = torch.Generator().manual_seed(settings.seed)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=settings.steps, pct_start=0.15)
        with track(_TRAINING, settings.steps) as update:
            for step in range(settings.steps):
                chosen = torch.randint(len(images), (settings.batch_size,), generator=random)
                inputs, targets = _augment(standardize(images[chosen].float()), hulls[chosen].float(), random)
                loss = _loss(network(inputs), targets)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call] # untyped in torch
                optimizer.step()
                schedule.step()
                update(step + 1)
        network.eval().requires_grad_(False)
    return locator


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Fix the initial weights, and use one thread: sums in several threads depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _draw_phantoms(settings: LungTraining) -> tuple[Tensor, Tensor]:
    """Draw images, (N, 64, 64) uint8, and the hulls of their lungs, (N, 64, 64) bool."""
    images, hulls = [], []
    with track(_DRAWING, settings.phantoms) as update:
        for number in range(settings.phantoms):
            phantom = draw_lung_phantom(settings.seed, number)
            images.append(phantom.image)
            hulls.append(phantom.hull)
            update(number + 1)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(hulls))


def _augment(images: Tensor, hulls: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip a batch, and change the contrast, brightness and noise of each image."""
    shape = (len(images), 1, 1)
    if torch.rand((), generator=random) < 0.5:
        images, hulls = images.flip(2), hulls.flip(2)
    images = images * (0.6 + 0.9 * torch.rand(shape, generator=random))
    images = images + 0.8 * torch.rand(shape, generator=random) - 0.4
    noise = 0.1 * torch.rand(shape, generator=random) * torch.randn(images.shape, generator=random)
    return images + noise, hulls


def _loss(logits: Tensor, hulls: Tensor) -> Tensor:
    """Compute the cross entropy plus the soft Dice loss of each image (Milletari et al. 2016), smoothed by 1 pixel."""
    probability = torch.sigmoid(logits)
    overlap, total = (probability * hulls).sum((1, 2)), probability.sum((1, 2)) + hulls.sum((1, 2))
    return binary_cross_entropy_with_logits(logits, hulls) + (1 - (2 * overlap + 1) / (total + 1)).mean()


def _weights(module: nn.Module) -> list[Tensor]:
    """Return the weights and running statistics of a module; counters of batches are not used in evaluation mode."""
    return [value for value in module.state_dict().values() if value.is_floating_point()]
