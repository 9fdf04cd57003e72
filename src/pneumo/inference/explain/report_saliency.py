"""Saliency maps of a run's test images, and the parameter randomisation test of saliency maps."""

from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor, nn

from pneumo.common.input_format import InputFormat
from pneumo.common.terminal import track
from pneumo.data.grey import square
from pneumo.data.radiograph import read_radiograph
from pneumo.errors import ConfigError, DataError
from pneumo.inference.backend import Floats, Images
from pneumo.inference.explain.overlays import overlay
from pneumo.inference.explain.saliency import METHODS, ExplainableClassifier, SaliencyMapper
from pneumo.models.classifier import Classifier
from pneumo.reporting.rendering import encode_jpeg
from pneumo.reporting.run_report import ExplainedImage, Explanations, ReportedRun
from pneumo.runs.recorded_config import read_config, resolve_references, select
from pneumo.runs.recorded_images import find_recorded_images

PARTS = ("head", "all")  # parts of the network that the test randomises
_M = TypeVar("_M", bound=nn.Module)
_MAX_SIDE = 360  # pixels of an image's longer side in the report
_BATCH_SIZE = 8


def explain_run(run: ReportedRun) -> Explanations:
    """Compute saliency maps for the examples in a run's report, or return the reason why this is impossible."""
    margin, uncertain_fraction, cause = None, None, ", because the run is incomplete"
    try:
        classifier = Classifier.load_from_checkpoint(run.folder / "checkpoints" / "best.ckpt").eval()
        settings = resolve_references(read_config(run.folder))
        uncertain_fraction = _read_uncertain_fraction(settings)
        margin = None if uncertain_fraction is None else classifier.hparams["margin"]
        cause = ", because test images are missing"
        paths = [run.predictions.paths[index] for index in run.examples.indices]
        images = [_read(file) for file in find_recorded_images(run.folder, settings, run.results, paths)]
        cause = ""
        mapper = SaliencyMapper(classifier)
    except (ConfigError, DataError) as error:
        missing = f"Images and saliency maps are not available{cause}: {error}"
        return Explanations({}, {}, missing, margin, uncertain_fraction)
    squares = [square(Image.fromarray(image), classifier.input_format) for image in images]
    inputs = torch.from_numpy(np.stack(squares))[:, None]
    maps: list[Floats] = []
    with track("Computing saliency maps", len(images)) as update:
        for batch in torch.split(inputs, _BATCH_SIZE):
            maps.extend(mapper(batch).numpy())
            update(len(maps))
    examples = iter(
        [_render(run, *each, classifier.input_format) for each in zip(run.examples.indices, images, maps, strict=True)]
    )
    kinds = {kind: list(islice(examples, len(indices))) for kind, indices in run.examples.kinds.items()}
    correlations = {part: rank_correlation(classifier, inputs[:_BATCH_SIZE], METHODS[0], part) for part in PARTS}
    return Explanations(kinds, correlations, "", margin, uncertain_fraction)


def _read_uncertain_fraction(settings: dict[str, Any]) -> float | None:
    """Return the configured fraction of uncertain validation images; None in runs of earlier versions."""
    known = isinstance(group := settings.get("decision"), dict) and "uncertain" in group
    return select(settings, "decision.uncertain", float, type(None)) if known else None


def _read(path: Path) -> Images:
    try:
        return np.asarray(read_radiograph(path).image)
    except DataError as error:
        raise DataError(f"{path} {error}") from None


def _render(run: ReportedRun, index: int, image: Images, saliency: Floats, form: InputFormat) -> ExplainedImage:
    classes, predictions = run.predictions.classes, run.predictions
    probability = f"{predictions.confidence[index]:.3f}"
    if predictions.is_binary:
        probability = f"({classes[1]} {probability})"
    prediction = f"{classes[predictions.predicted[index]]} {probability}"
    small = Image.fromarray(image)
    small.thumbnail((_MAX_SIDE, _MAX_SIDE))
    pixels = np.asarray(small)
    blended = overlay(pixels, saliency, form)
    true_class, is_correct = classes[predictions.label[index]], bool(predictions.correct[index])
    path = predictions.paths[index]
    return ExplainedImage(path, encode_jpeg(pixels), encode_jpeg(blended), true_class, prediction, is_correct)


def rank_correlation(classifier: ExplainableClassifier, images: Tensor, method: str, part: str, seed: int = 0) -> float:
    """Compute the rank correlation of saliency maps before and after randomising weights (Adebayo et al. 2018).

    Values near 1 mean that saliency maps do not depend on what the network has learned.

    Args:
        classifier: Trained classifier, which is not modified.
        images: Images (N, 1, size, size) uint8.
        method: One of `METHODS`.
        part: Part of the network to randomise, one of `PARTS`.
        seed: Seed of the random weights.

    Returns:
        Spearman's correlation over the pixels, as the mean over images; 0 for an image with a constant map.
    """
    if part not in PARTS:
        raise ValueError(f"part={part!r} must be one of {', '.join(PARTS)}")
    mappers = (SaliencyMapper(each, method) for each in (classifier, _Randomised(classifier, part, seed)))
    before, after = (mapper(images).flatten(1).double().cpu().numpy() for mapper in mappers)
    return float(np.mean([_spearman(*pair) for pair in zip(before, after, strict=True)]))


class _Randomised:
    def __init__(self, classifier: ExplainableClassifier, part: str, seed: int) -> None:
        self.classes, self.input_format = classifier.classes, classifier.input_format
        self.flip_test = classifier.flip_test
        self.head = randomise(classifier.head, seed)
        self.backbone = randomise(classifier.backbone, seed) if part == "all" else classifier.backbone


def randomise(module: _M, seed: int) -> _M:
    """Return a copy of a module with new random weights.

    Layers with `reset_parameters` are initialised again. Other weights are drawn from a normal distribution with mean 0
    and the standard deviation of the current weights.
    """
    randomised = copy.deepcopy(module)
    with torch.random.fork_rng(range(torch.cuda.device_count())), torch.no_grad():
        torch.manual_seed(seed)
        for layer in randomised.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
                continue
            for weight in layer.parameters(recurse=False):
                weight.normal_(0, float(weight.std()) if weight.numel() > 1 else 1.0)
    return randomised


def _spearman(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> float:
    if before.min() == before.max() or after.min() == after.max():
        return 0.0
    return float(np.corrcoef(rankdata(before), rankdata(after))[0, 1])
