"""Latency of what `pneumo export` writes, run by onnxruntime, against the checkpoint in eager PyTorch.

    python benchmarks/export.py            phantoms, five networks: some minutes on two cores
    PNEUMO_DATA_ROOT=FOLDER python benchmarks/export.py --full

Networks have random weights. PyTorch's side is pneumo's own, with batch normalisations folded and weights channels
last, and answers the same; both use all cores. `answers differ by` is the largest difference of a probability to the
checkpoint's plain network, on 100 films of the full run and on 64 phantoms of the other.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from lightning import Trainer

from pneumo.inference.backend import Images, Rules
from pneumo.inference.export.exporter import Films
from pneumo.inference.export.parity import measure_latency, write_checked
from pneumo.inference.torch_backend import CheckpointNetwork
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.classifier import Classifier
from pneumo.models.fast_inference import fast_copy
from pneumo.models.ood_detector import LevelMeans, fit_ood_detector
from pneumo.training.checkpoints import write_checkpoint
from pneumo.training.components import quieten

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
    films: Images,
    classes: Sequence[str] = CLASSES,
    **settings: Any,  # noqa: ANN401 (further hyperparameters)
) -> None:
    """Write a checkpoint with random weights, whose model of unlike images is fitted to some films.

    Args:
        path: Of the checkpoint.
        name: Of the architecture.
        films: (N, 1, S, S).
        classes: Their names.
        settings: Further hyperparameters.
    """
    torch.manual_seed(0)
    classifier = Classifier.from_hyperparameters(
        architecture=name, classes=classes, image_size=films.shape[-1], **settings
    )
    for module in classifier.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        classifier.backbone(torch.from_numpy(films[:16]))  # normalisations learn what else vanishes in a deep network
    classifier.eval()
    levels = LevelMeans(fast_copy(classifier.backbone, films.shape[-1]), films.shape[-1])
    with torch.inference_mode():
        features, means = zip(*(levels(block) for block in torch.split(torch.from_numpy(films), 16)), strict=True)
        random = classifier.head(torch.cat(features))  # alike for all films: neither 0 nor 1 shall be the answer to all
        classifier.head.weight.mul_(spread := 3 / (random[:, 1] - random[:, 0]).std())
        classifier.head.bias.copy_(-spread * (random - classifier.head.bias).mean(0))
    reference, usual = np.split(torch.cat(means).double().numpy(), [len(films) * 2 // 3])
    classifier.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    classifier.trainer.strategy.connect(classifier)
    classifier.trainer.save_checkpoint(path)
    outliers = fit_ood_detector(reference, [(usual, 0.01)], levels.channels)._asdict()
    write_checkpoint(read_checkpoint(path) | {"outliers": outliers}, path)


def main() -> None:
    """Export and measure all networks."""
    settings = harness.parse(str(__doc__), rounds=9, phantoms=64)
    quieten()
    folder = settings.out / "export"
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in NETWORKS.items():
        short = name.split("/")[1]
        checkpoint, path = folder / f"{short}.ckpt", folder / f"{short}.onnx"
        rules = Rules(name, CLASSES, size, 1.0, 0.5, None, True)
        films, _ = Films(settings.root, {}, rules).load("train", 100)
        write_untrained(checkpoint, name, films)
        network = CheckpointNetwork(checkpoint)
        exported, difference = write_checked(network, checkpoint, films, path)
        note = f"{path.stat().st_size / 1e6:,.1f} MB; answers differ by {difference.probability:.1e}"
        for batch in (1, 32):
            sides = {"eager PyTorch": network, "pneumo export, onnxruntime": exported}
            taken = measure_latency(sides, films, batch, settings.rounds)
            found = {side: [1e3 * seconds for seconds in values] for side, values in taken.items()}
            harness.report(f"export-{short}-{batch}", settings, "ms", found, note)
        checkpoint.unlink()
        path.unlink()  # half a gigabyte of VGG16


if __name__ == "__main__":
    main()
