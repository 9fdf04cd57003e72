"""The backend of checkpoints, which runs PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pneumo.common.hardware import keep_freed_memory
from pneumo.errors import ConfigError, HardwareError
from pneumo.inference.backend import Floats, Images, Network, Rules, Scores, SettingStyle, as_argument
from pneumo.models.classifier import Classifier
from pneumo.models.fast_inference import Scorer, default_batch_size

_EXPLAINED = 16  # images that are explained at once: gradients take several times the memory of predictions


class CheckpointNetwork(Network):
    """A checkpoint's network, on the CPU or on a GPU."""

    def __init__(self, path: Path, device: str = "cpu", style: SettingStyle = as_argument) -> None:
        """Open a checkpoint; the device is cpu, cuda, or auto, which is a GPU if there is one."""
        there = torch.cuda.is_available()
        if device == "cuda" and not there:
            raise HardwareError(
                f"{style('device', 'cuda')} demands a GPU, and PyTorch {torch.__version__} sees none on this machine: "
                f"take {style('device', 'cpu')}, or check the driver (nvidia-smi) and that this PyTorch was built for "
                "it."
            )
        self.style = style
        self.device = torch.device("cuda" if there and device != "cpu" else "cpu")
        self.classifier = Classifier.load_from_checkpoint(path).eval()
        self.rules = _read_rules(self.classifier)
        self.batch_size = default_batch_size(self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.scorer = Scorer(self.classifier).to(self.device)
        detector, channels = self.classifier.ood_detector, sum(self.scorer.levels.channels)
        if detector is not None and len(detector.mean) != channels:
            raise ConfigError(
                f"{path} tells unlike images by {len(detector.mean)} channels, and its network has {channels}: it is "
                "damaged or was altered. Take an intact copy of it, or another checkpoint."
            )

    def score(self, image: Images) -> Scores:
        """Score images; see `Network`."""
        with torch.inference_mode(), _fitting(len(image), self.style):
            probability, unlike = self.scorer(torch.from_numpy(image).to(self.device))
        return probability.float().cpu().numpy(), unlike.float().cpu().numpy()

    def explainer(self, method: str) -> Callable[[Images], Floats]:
        """Build the function that maps images to saliency maps; see `Network`."""
        from pneumo.inference.explain.saliency import SaliencyMapper  # imports captum

        explain = SaliencyMapper(self.classifier.to(self.device), method)

        def explain_blocks(images: Images) -> Floats:
            with _fitting(_EXPLAINED, self.style):
                blocks = torch.split(torch.from_numpy(images), _EXPLAINED)
                return torch.cat([explain(block).cpu() for block in blocks]).numpy()

        return explain_blocks


@contextmanager
def _fitting(images: int, style: SettingStyle) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise HardwareError(
            f"{images} films at once do not fit into the GPU's memory: take fewer, such as "
            f"{style('batch_size', max(1, images // 4))}, or {style('device', 'cpu')}."
        ) from error


def _read_rules(classifier: Classifier) -> Rules:
    known = classifier.hparams
    return Rules(
        name=known["architecture"],
        classes=tuple(classifier.classes),
        image_size=classifier.image_size,
        crop_pct=classifier.crop_pct,
        threshold=known["threshold"],
        margin=known["margin"],
        outliers=classifier.ood_detector is not None,
    )
