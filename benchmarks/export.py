"""Latency of ONNX files from `pneumo export` in onnxruntime, compared with the checkpoint in eager PyTorch.

    python benchmarks/export.py            phantoms, five networks: a few minutes on two cores
    PNEUMO_DATA_ROOT=FOLDER python benchmarks/export.py --full

Networks have random weights. PyTorch runs pneumo's inference copy, with folded batch normalization and channels-last
weights; both use all cores. `probabilities differ by` is the largest difference from the checkpoint's network before
folding, on 100 images in the full run and on 64 phantoms otherwise.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from lightning import Trainer

from pneumo.inference.backend import Images, Rules
from pneumo.inference.export.exporter import LabelledImages
from pneumo.inference.export.parity import measure_latency, write_checked
from pneumo.inference.torch_backend import CheckpointNetwork
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.classifier import Classifier
from pneumo.models.fast_inference import fast_copy
from pneumo.models.ood_detector import MultiLevelBackbone, fit_ood_detector
from pneumo.training.checkpoints import write_checkpoint
from pneumo.training.components import silence_warnings

NETWORKS = {
    "pneumo/xraychestnet": 96,
    "timm/tf_efficientnet_lite0": 224,
    "torchvision/resnext50_32x4d": 224,
    "torchvision/googlenet": 224,
    "torchvision/vgg16": 224,
}
CLASSES = ("NORMAL", "PNEUMONIA")


def write_untrained(
    path: Path,
    name: str,
    images: Images,
    classes: Sequence[str] = CLASSES,
    **settings: Any,  # noqa: ANN401 (hyperparameters of several types)
) -> None:
    """Write a checkpoint with random weights and an OOD detector.

    Args:
        path: File to write.
        name: Architecture, SOURCE/NAME.
        images: Images (N, 1, S, S) to which the OOD detector is fitted.
        classes: Names of the classes.
        settings: Further hyperparameters.
    """
    torch.manual_seed(0)
    classifier = Classifier.from_hyperparameters(
        architecture=name, classes=classes, image_size=images.shape[-1], **settings
    )
    for module in classifier.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        classifier.backbone(torch.from_numpy(images[:16]))  # without their statistics, deep networks output constants
    classifier.eval()
    levels = MultiLevelBackbone(fast_copy(classifier.backbone, images.shape[-1]), images.shape[-1])
    with torch.inference_mode():
        features, means = zip(*(levels(block) for block in torch.split(torch.from_numpy(images), 16)), strict=True)
        logits = classifier.head(torch.cat(features))  # nearly equal for all images, so the head is rescaled
        classifier.head.weight.mul_(scale := 3 / (logits[:, 1] - logits[:, 0]).std())
        classifier.head.bias.copy_(-scale * (logits - classifier.head.bias).mean(0))
    reference, in_distribution = np.split(torch.cat(means).double().numpy(), [len(images) * 2 // 3])
    classifier.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    classifier.trainer.strategy.connect(classifier)
    classifier.trainer.save_checkpoint(path)
    outliers = fit_ood_detector(reference, [(in_distribution, 0.01)], levels.channels)._asdict()
    write_checkpoint(read_checkpoint(path) | {"outliers": outliers}, path)


def main() -> None:
    """Export and measure all networks."""
    settings = harness.parse(str(__doc__), rounds=9, phantoms=64)
    silence_warnings()
    folder = settings.out / "export"
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in NETWORKS.items():
        short = name.split("/")[1]
        checkpoint, path = folder / f"{short}.ckpt", folder / f"{short}.onnx"
        rules = Rules(name, CLASSES, size, 1.0, 0.5, None, True)
        images, _ = LabelledImages(settings.root, {}, rules).load("train", 100)
        write_untrained(checkpoint, name, images)
        network = CheckpointNetwork(checkpoint)
        exported, difference = write_checked(network, checkpoint, images, path)
        note = f"{path.stat().st_size / 1e6:,.1f} MB; probabilities differ by {difference.probability:.1e}"
        for batch in (1, 32):
            networks = {"eager PyTorch": network, "pneumo export, onnxruntime": exported}
            latencies = measure_latency(networks, images, batch, settings.rounds)
            results = {variant: [1e3 * seconds for seconds in values] for variant, values in latencies.items()}
            harness.report(f"export-{short}-{batch}", settings, "ms", results, note)
        checkpoint.unlink()
        path.unlink()  # that of VGG16 has half a gigabyte


if __name__ == "__main__":
    main()
