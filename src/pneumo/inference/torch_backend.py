"""The backend of checkpoints and ensembles, which runs PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from pneumo.common.hardware import keep_freed_memory
from pneumo.errors import ConfigError, HardwareError
from pneumo.inference.backend import Floats, Images, Network, Rules, Scores, SettingStyle, as_argument
from pneumo.metrics.predictions import Predictions, log_odds, predict_classes
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.classifier import Classifier
from pneumo.models.ensemble import EnsembleModule
from pneumo.models.ensemble_content import MEMBERS
from pneumo.models.fast_inference import InferenceModule, default_batch_size
from pneumo.models.hyperparameters import PredictionOptions, name_ensemble

_EXPLAIN_BATCH_SIZE = 16  # gradients need several times the memory of predictions


class CheckpointNetwork(Network):
    """The network of a checkpoint, or the networks of an ensemble, on the CPU or on a GPU.

    Attributes:
        classifiers: The members of an ensemble; otherwise the only classifier.
        module: The exportable module that computes the scores.
    """

    def __init__(self, path: Path, device: str = "cpu", style: SettingStyle = as_argument) -> None:
        """Load a checkpoint or an ensemble; the device is cpu, cuda or auto (a GPU if available)."""
        available = torch.cuda.is_available()
        if device == "cuda" and not available:
            raise HardwareError(
                f"{style('device', 'cuda')} needs a GPU, and PyTorch {torch.__version__} finds none. Use "
                f"{style('device', 'cpu')}, or check the driver (nvidia-smi) and the CUDA version of PyTorch."
            )
        self.style = style
        self.device = torch.device("cuda" if available and device != "cpu" else "cpu")
        content = read_checkpoint(path)
        self.classifiers = [Classifier.from_content(each, path).eval() for each in content.get(MEMBERS, [content])]
        self.options = _read_options(content["hyper_parameters"])
        self.rules = _build_rules(self.classifiers, self.options)
        self.batch_size = default_batch_size(self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        modules = [_build_module(classifier, path) for classifier in self.classifiers]
        ensemble = EnsembleModule(modules, self.options.temperature, self.options.intercept)
        self.module: EnsembleModule | InferenceModule = ensemble if len(modules) > 1 else modules[0]
        self.module.to(self.device)
        self._adaptation: dict[str, Any] | None = content.get("adaptation")

    def score(self, images: Images) -> Scores:
        """Compute probabilities and OOD scores; see `Network`."""
        with torch.inference_mode(), _catch_out_of_memory(len(images), self.style):
            probability, ood_score = self.module(torch.from_numpy(images).to(self.device))
        return probability.float().cpu().numpy(), ood_score.float().cpu().numpy()

    def combine(self, scores: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Combine the scores of its classifiers to those of the network."""
        return self.module.combine(scores) if isinstance(self.module, EnsembleModule) else scores[0]

    def internal_test(self) -> Predictions | None:
        """Return the predictions for the test images of the network's own runs; see `Network`."""
        tests = [_internal_test(classifier, self.rules.threshold) for classifier in self.classifiers]
        complete = [test for test in tests if test is not None]
        if len(complete) < len(tests) or not all(_has_same_images(test, complete[0]) for test in complete):
            return None
        return complete[0] if len(complete) == 1 else _average_tests(complete, self.options)

    def adaptation(self) -> dict[str, Any] | None:
        """Return the record of a local adaptation; see `Network`."""
        return self._adaptation

    def explainer(self, method: str) -> Callable[[Images], Floats]:
        """Build a function that maps images to saliency maps; of an ensemble, the mean. See `Network`."""
        from pneumo.inference.explain.saliency import SaliencyMapper  # imports captum

        mappers = [SaliencyMapper(classifier.to(self.device), method) for classifier in self.classifiers]

        def explain(images: Tensor) -> Tensor:
            if len(mappers) == 1:
                return mappers[0](images)
            return _scale(torch.stack([mapper(images, self._targets(images)) for mapper in mappers]).mean(0))

        def explain_batches(images: Images) -> Floats:
            with _catch_out_of_memory(_EXPLAIN_BATCH_SIZE, self.style):
                batches = torch.split(torch.from_numpy(images), _EXPLAIN_BATCH_SIZE)
                return torch.cat([explain(batch).cpu() for batch in batches]).numpy()

        return explain_batches

    def _targets(self, images: Tensor) -> Tensor:
        """Return the explained class of each image, (N,): the positive one of two, otherwise the predicted one."""
        if self.rules.positive_class is not None:
            return torch.ones(len(images), dtype=torch.long)
        with torch.no_grad():  # captum cannot use tensors of the inference mode
            probability: Tensor = self.module(images.to(self.device))[0]
        return probability.argmax(1)


@contextmanager
def _catch_out_of_memory(batch_size: int, style: SettingStyle) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise HardwareError(
            f"A batch of {batch_size} images does not fit in the GPU's memory. Use a smaller batch, such as "
            f"{style('batch_size', max(1, batch_size // 4))}, or {style('device', 'cpu')}."
        ) from error


def _read_options(hyperparameters: Mapping[str, Any]) -> PredictionOptions:
    names = {field.name for field in fields(PredictionOptions)}
    return PredictionOptions(**{name: value for name, value in hyperparameters.items() if name in names})


def _build_rules(classifiers: Sequence[Classifier], options: PredictionOptions) -> Rules:
    names = [str(classifier.hparams["architecture"]) for classifier in classifiers]
    form = classifiers[0].input_format
    return Rules(
        name=names[0] if len(names) == 1 else name_ensemble(names),
        classes=tuple(classifiers[0].classes),
        image_size=form.size,
        crop_pct=form.crop_pct,
        threshold=options.threshold,
        margin=options.margin,
        has_ood_detector=all(classifier.ood_detector is not None for classifier in classifiers),
        aspect=form.aspect,
        histogram=form.histogram,
    )


def _build_module(classifier: Classifier, path: Path) -> InferenceModule:
    module = InferenceModule(classifier)
    detector, channels = classifier.ood_detector, sum(module.levels.channels)
    if detector is not None and len(detector.mean) != channels:
        raise ConfigError(
            f"{path} is damaged or was altered: its OOD detector has {len(detector.mean)} channels, its network "
            f"{channels}. Use an intact copy or another checkpoint."
        )
    return module


def _internal_test(classifier: Classifier, threshold: float) -> Predictions | None:
    stored = classifier.internal_test
    if stored is None:
        return None
    logits = torch.stack((torch.zeros_like(stored["margin"]), stored["margin"]), dim=1)
    predictions = classifier.predictions(logits, stored["label"], threshold)
    return replace(predictions, patients=tuple(map(str, stored["patient"].tolist())))


def _has_same_images(test: Predictions, other: Predictions) -> bool:
    return np.array_equal(test.label, other.label) and test.patients == other.patients


def _average_tests(tests: Sequence[Predictions], options: PredictionOptions) -> Predictions:
    """Average calibrated predictions for the same images, as `EnsembleModule` does."""
    odds = log_odds(np.stack([test.odds for test in tests if test.odds is not None]))
    probability = np.mean([test.probability for test in tests], axis=0)
    if (options.temperature, options.intercept) != (1, 0):
        odds = odds / options.temperature + np.array([-1, 1]) * options.intercept
        probability = expit(odds)
    rounded = probability.astype(np.float32)
    predicted = predict_classes(rounded, options.threshold)
    return replace(tests[0], probability=rounded.astype(np.float64), predicted=predicted, odds=odds)


def _scale(maps: Tensor) -> Tensor:
    """Scale maps (N, S, S) to a maximum of 1, unless they are 0."""
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
