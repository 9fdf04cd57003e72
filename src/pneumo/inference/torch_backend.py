"""The backend of checkpoints, which runs PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pneumo.common.hardware import keep_freed_memory
from pneumo.errors import ConfigError, HardwareError
from pneumo.inference.backend import Floats, Images, Network, Rules, Scores, SettingStyle, as_argument
from pneumo.metrics.predictions import Predictions
from pneumo.models.classifier import Classifier
from pneumo.models.fast_inference import InferenceModule, default_batch_size

_EXPLAIN_BATCH_SIZE = 16  # gradients need several times the memory of predictions


class CheckpointNetwork(Network):
    """A checkpoint's network, on the CPU or on a GPU."""

    def __init__(self, path: Path, device: str = "cpu", style: SettingStyle = as_argument) -> None:
        """Load a checkpoint; the device is cpu, cuda or auto (a GPU if available)."""
        available = torch.cuda.is_available()
        if device == "cuda" and not available:
            raise HardwareError(
                f"{style('device', 'cuda')} needs a GPU, and PyTorch {torch.__version__} finds none. Use "
                f"{style('device', 'cpu')}, or check the driver (nvidia-smi) and the CUDA version of PyTorch."
            )
        self.style = style
        self.device = torch.device("cuda" if available and device != "cpu" else "cpu")
        self.classifier = Classifier.load_from_checkpoint(path).eval()
        self.rules = _read_rules(self.classifier)
        self.batch_size = default_batch_size(self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.module = InferenceModule(self.classifier).to(self.device)
        detector, channels = self.classifier.ood_detector, sum(self.module.levels.channels)
        if detector is not None and len(detector.mean) != channels:
            raise ConfigError(
                f"{path} is damaged or was altered: its OOD detector has {len(detector.mean)} channels, its network "
                f"{channels}. Use an intact copy or another checkpoint."
            )

    def score(self, images: Images) -> Scores:
        """Compute probabilities and OOD scores; see `Network`."""
        with torch.inference_mode(), _catch_out_of_memory(len(images), self.style):
            probability, ood_score = self.module(torch.from_numpy(images).to(self.device))
        return probability.float().cpu().numpy(), ood_score.float().cpu().numpy()

    def internal_test(self) -> Predictions | None:
        """Return the predictions for the test images of the network's own run; see `Network`."""
        stored = self.classifier.internal_test
        if stored is None:
            return None
        logits = torch.stack((torch.zeros_like(stored["margin"]), stored["margin"]), dim=1)
        predictions = self.classifier.predictions(logits, stored["label"], self.rules.threshold)
        return replace(predictions, patients=tuple(map(str, stored["patient"].tolist())))

    def adaptation(self) -> dict[str, Any] | None:
        """Return the record of a local adaptation; see `Network`."""
        return self.classifier.adaptation

    def explainer(self, method: str) -> Callable[[Images], Floats]:
        """Build a function that maps images to saliency maps; see `Network`."""
        from pneumo.inference.explain.saliency import SaliencyMapper  # imports captum

        explain = SaliencyMapper(self.classifier.to(self.device), method)

        def explain_batches(images: Images) -> Floats:
            with _catch_out_of_memory(_EXPLAIN_BATCH_SIZE, self.style):
                batches = torch.split(torch.from_numpy(images), _EXPLAIN_BATCH_SIZE)
                return torch.cat([explain(batch).cpu() for batch in batches]).numpy()

        return explain_batches


@contextmanager
def _catch_out_of_memory(batch_size: int, style: SettingStyle) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise HardwareError(
            f"A batch of {batch_size} images does not fit in the GPU's memory. Use a smaller batch, such as "
            f"{style('batch_size', max(1, batch_size // 4))}, or {style('device', 'cpu')}."
        ) from error


def _read_rules(classifier: Classifier) -> Rules:
    hparams, form = classifier.hparams, classifier.input_format
    return Rules(
        name=hparams["architecture"],
        classes=tuple(classifier.classes),
        image_size=form.size,
        crop_pct=form.crop_pct,
        threshold=hparams["threshold"],
        margin=hparams["margin"],
        has_ood_detector=classifier.ood_detector is not None,
        aspect=form.aspect,
        histogram=form.histogram,
    )
