"""Checkpoints of networks with random weights and the content of a tested run."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pneumo.common.input_format import InputFormat
from pneumo.models.backbones import Backbone
from pneumo.models.classifier import Classifier
from pneumo.models.fast_inference import fast_copy
from pneumo.models.hyperparameters import PredictionOptions
from pneumo.models.ood_detector import MultiLevelBackbone, fit_ood_detector
from pneumo.training.checkpoints import write_checkpoint as write

SIZE = 32
CLASSES = ("NORMAL", "PNEUMONIA")
SUBTYPES = ("NORMAL", "BACTERIAL", "VIRAL")


def write_checkpoint(path: Path, classes: tuple[str, ...] = CLASSES, tested: bool = True) -> Path:
    """Write the checkpoint of a small network with a crop, flip averaging and a temperature.

    Args:
        path: Path of the checkpoint.
        classes: Class names.
        tested: Store a margin and an OOD detector fitted to noise.
    """
    torch.manual_seed(0)
    prediction = PredictionOptions(temperature=0.05, margin=0.5 if tested else None, flip_test=True)
    classifier = Classifier("pneumo/xraychestnet", classes, InputFormat(SIZE, 0.9), prediction=prediction).eval()
    with torch.no_grad():
        classifier.head.bias.zero_()
    means, levels = None, MultiLevelBackbone(classifier.backbone, SIZE)
    if tested:
        noise = torch.randint(0, 256, (40, 1, SIZE, SIZE), dtype=torch.uint8)
        with torch.inference_mode():
            means = levels(noise)[1]
    return _save(path, classifier, means, 20, levels.channels)


def smooth_images(count: int, size: int) -> Tensor:
    """Return smooth grayscale images, (count, 1, size, size) uint8."""
    noise = torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(count))
    return (255 * nn.functional.interpolate(noise, size, mode="bilinear")).to(torch.uint8)


def write_untrained(
    path: Path, architecture: str, size: int, flip: bool = True, classes: int = 2, lung_crop: int | None = None
) -> Path:
    """Write the checkpoint of any network with varied predictions for smooth images.

    Args:
        path: Path of the checkpoint.
        architecture: Architecture, SOURCE/NAME.
        size: Height and width of the images in pixels.
        flip: Enable flip averaging.
        classes: Number of classes, 2 or 3.
        lung_crop: Height and width of the crop in pixels, whose boxes are random; None: no crop.
    """
    torch.manual_seed(0)
    prediction = PredictionOptions(temperature=0.7, flip_test=flip, threshold=0.4, margin=0.3)
    names = CLASSES if classes == 2 else SUBTYPES
    classifier = Classifier(architecture, names, InputFormat(size, 0.875), prediction=prediction, lung_crop=lung_crop)
    images = smooth_images(48, size)
    if lung_crop is not None:
        use_random_boxes(classifier.backbone, images)
    _fit_batch_norm(classifier.backbone, images[:16])
    classifier.eval()
    levels = MultiLevelBackbone(fast_copy(classifier.backbone, size), size)
    with torch.inference_mode():
        features, means = zip(*(levels(block) for block in torch.split(images, 16)), strict=True)
        _spread_outputs(classifier.head, torch.cat(features))
    return _save(path, classifier, torch.cat(means), 32, levels.channels)


def use_random_boxes(backbone: Backbone, images: Tensor) -> None:
    """Make the random locator of a backbone confident, so that crops differ from the whole images."""
    assert backbone.crop is not None
    output = backbone.crop.locator.network.output
    assert output.bias is not None
    logits = torch.logit(backbone.crop.locator(images))
    scale = 200 / logits.std()
    with torch.no_grad():
        output.weight.mul_(scale)
        output.bias.sub_(logits.quantile(0.997)).mul_(scale)


def _fit_batch_norm(backbone: nn.Module, images: Tensor) -> None:
    """Set batch-normalization statistics to those of images, since deep networks otherwise output constants."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d) and module.training:
            module.momentum = 1.0
    with torch.no_grad():
        backbone(images)


def _spread_outputs(head: nn.Linear, features: Tensor) -> None:
    """Scale a random head so that probabilities vary between 0 and 1."""
    logits = head(features)
    spread = 3 / (logits[:, 1] - logits[:, 0]).std()
    head.weight.mul_(spread)
    head.bias.copy_(-spread * (logits - head.bias).mean(0))


def _save(path: Path, classifier: Classifier, means: Tensor | None, reference: int, channels: list[int]) -> Path:
    """Write a checkpoint with an OOD detector fitted to the first `reference` means and calibrated on the others."""
    content = {
        "state_dict": classifier.state_dict(),
        "hyper_parameters": dict(classifier.hparams),
        "pytorch-lightning_version": "2.6.0",
    }
    if means is not None:
        values = means.double().numpy()
        content["outliers"] = fit_ood_detector(values[:reference], [(values[reference:], 0.01)], channels)._asdict()
    write(content, path)
    return path
