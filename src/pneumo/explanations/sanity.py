"""Whether maps show what a network has learned, or only what any network would make of the film."""

import copy
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from pneumo.explanations.maps import Answering, Explainer

PARTS = ("head", "all")
_M = TypeVar("_M", bound=nn.Module)


class _Randomised:
    def __init__(self, classifier: Answering, part: str, seed: int) -> None:
        self.classes, self.image_size, self.flip_test = classifier.classes, classifier.image_size, classifier.flip_test
        self.head = randomise(classifier.head, seed)
        self.backbone = randomise(classifier.backbone, seed) if part == "all" else classifier.backbone


def rank_correlation(classifier: Answering, images: Tensor, method: str, part: str, seed: int = 0) -> float:
    """Compute how much maps stay as they are when a network forgets what it has learned (Adebayo et al. 2018).

    Args:
        classifier: Stays as it is.
        images: uint8, (N, 1, size, size); computed at once.
        method: See `pneumo.explanations.maps.METHODS`.
        part: "head": the head is drawn anew; "all": the whole network.
        seed: Of the new weights.

    Returns:
        Spearman's rank correlation of the maps before and after, over the pixels, as the mean over the images. Near 1
        maps tell nothing of what was learned. A map that is the same everywhere has no ranks, and counts as 0.
    """
    if part not in PARTS:
        raise ValueError(f"part={part!r} is none of {', '.join(PARTS)}")
    explainers = (Explainer(each, method) for each in (classifier, _Randomised(classifier, part, seed)))
    before, after = (explain(images).flatten(1).double().cpu().numpy() for explain in explainers)
    return float(np.mean([_spearman(*pair) for pair in zip(before, after, strict=True)]))


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
