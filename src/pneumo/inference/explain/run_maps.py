"""Saliency maps of a run's test images, and the randomisation test of their dependence on weights."""

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

from pneumo.common.terminal import track
from pneumo.data.grey import square
from pneumo.data.index import default_root
from pneumo.data.radiograph import read_radiograph
from pneumo.errors import ConfigError, DataError
from pneumo.inference.backend import Floats, Images
from pneumo.inference.explain.overlays import overlay
from pneumo.inference.explain.saliency import METHODS, ExplainableClassifier, SaliencyMapper
from pneumo.models.classifier import Classifier
from pneumo.reporting.rendering import encode_jpeg
from pneumo.reporting.run_report import ExplainedImage, Explanations, ReportedRun
from pneumo.runs.recorded_config import read_config, resolve_references, select
from pneumo.runs.split_files import find_images

PARTS = ("head", "all")  # of the network, which the test randomises
_M = TypeVar("_M", bound=nn.Module)
_LONGEST = 360  # pixels of a film's longer side on the page
_AT_ONCE = 8  # images that are explained at once


def explain_run(run: ReportedRun) -> Explanations:
    """Compute saliency maps of the images that a run's page shows, or the reason why there are none."""
    margin, uncertain, why = None, None, ", since the run is not whole"
    try:
        classifier = Classifier.load_from_checkpoint(run.folder / "checkpoints" / "best.ckpt").eval()
        settings = resolve_references(read_config(run.folder))
        uncertain = _read_uncertain(settings)
        margin = None if uncertain is None else classifier.hparams["margin"]
        named = select(settings, "data.root", str, type(None))
        root = default_root() if named is None else Path(named)
        classes = [str(name) for name in select(settings, "data.classes", list)]
        why = ", since the test's are not all at hand"
        paths = [run.predictions.paths[place] for place in run.examples.indices]
        films = [_read(file) for file in find_images(run.folder, root, classes, str(run.results["data_hash"]), paths)]
        why = ""
        explainer = SaliencyMapper(classifier)
    except (ConfigError, DataError) as error:
        missing = f"There are no films and maps here{why}: {error}"
        return Explanations({}, {}, missing, margin, uncertain)
    inputs = [square(Image.fromarray(film), classifier.image_size, classifier.crop_pct) for film in films]
    images = torch.from_numpy(np.stack(inputs))[:, None]
    maps: list[Floats] = []
    with track("Looking where answers come from", len(films)) as advance:
        for block in torch.split(images, _AT_ONCE):
            maps.extend(explainer(block).numpy())
            advance(len(maps))
    shown = iter(
        [_show(run, *each, classifier.crop_pct) for each in zip(run.examples.indices, films, maps, strict=True)]
    )
    kinds = {kind: list(islice(shown, len(places))) for kind, places in run.examples.kinds.items()}
    forgotten = {part: rank_correlation(classifier, images[:_AT_ONCE], METHODS[0], part) for part in PARTS}
    return Explanations(kinds, forgotten, "", margin, uncertain)


def _read_uncertain(settings: dict[str, Any]) -> float | None:
    """Return the fraction of validation images that counts as uncertain; runs of earlier versions have none."""
    known = isinstance(group := settings.get("decision"), dict) and "uncertain" in group
    return select(settings, "decision.uncertain", float, type(None)) if known else None


def _read(path: Path) -> Images:
    try:
        return np.asarray(read_radiograph(path).image)
    except DataError as error:
        raise DataError(f"{path} {error}") from None


def _show(run: ReportedRun, place: int, film: Images, places: Floats, crop_pct: float) -> ExplainedImage:
    names, answers = run.predictions.classes, run.predictions
    share = f"{answers.confidence[place]:.3f}"
    answer = f"{names[answers.predicted[place]]} {f'({names[1]} {share})' if answers.is_binary else share}"
    small = Image.fromarray(film)
    small.thumbnail((_LONGEST, _LONGEST))
    pixels = np.asarray(small)
    mixed = overlay(pixels, places, crop_pct)
    truth, right = names[answers.label[place]], bool(answers.right[place])
    return ExplainedImage(answers.paths[place], encode_jpeg(pixels), encode_jpeg(mixed), truth, answer, right)


def rank_correlation(classifier: ExplainableClassifier, images: Tensor, method: str, part: str, seed: int = 0) -> float:
    """Compute how much maps stay as they are when a network forgets what it has learned (Adebayo et al. 2018).

    It is Spearman's rank correlation of the maps before and after, over the pixels, as the mean over images (N, 1,
    size, size) uint8. Near 1 maps tell nothing of what was learned. A map that is the same everywhere has no ranks, and
    counts as 0. The part that is drawn anew is the head, or all of the network.
    """
    if part not in PARTS:
        raise ValueError(f"part={part!r} is none of {', '.join(PARTS)}")
    explainers = (SaliencyMapper(each, method) for each in (classifier, _Randomised(classifier, part, seed)))
    before, after = (explain(images).flatten(1).double().cpu().numpy() for explain in explainers)
    return float(np.mean([_spearman(*pair) for pair in zip(before, after, strict=True)]))


class _Randomised:
    def __init__(self, classifier: ExplainableClassifier, part: str, seed: int) -> None:
        self.classes, self.image_size, self.flip_test = classifier.classes, classifier.image_size, classifier.flip_test
        self.head = randomise(classifier.head, seed)
        self.backbone = randomise(classifier.backbone, seed) if part == "all" else classifier.backbone


def randomise(module: _M, seed: int) -> _M:
    """Copy a module with new weights: as its layers draw them, and of no layer's, as spread as they were."""
    drawn = copy.deepcopy(module)
    with torch.random.fork_rng(range(torch.cuda.device_count())), torch.no_grad():
        torch.manual_seed(seed)
        for layer in drawn.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
                continue
            for weight in layer.parameters(recurse=False):
                weight.normal_(0, float(weight.std()) if weight.numel() > 1 else 1.0)
    return drawn


def _spearman(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> float:
    if before.min() == before.max() or after.min() == after.max():
        return 0.0
    return float(np.corrcoef(rankdata(before), rankdata(after))[0, 1])
