"""Saliency maps of a finished run's test images, computed for its page."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pneumo.data.images import square
from pneumo.data.index import default_root
from pneumo.data.radiograph import read_radiograph
from pneumo.errors import ConfigError, DataError
from pneumo.evaluation.run_config import read_config, resolve_references, select
from pneumo.explanations.maps import METHODS, Explainer
from pneumo.explanations.overlays import overlay
from pneumo.explanations.sanity import PARTS, rank_correlation
from pneumo.models.classifier import Classifier
from pneumo.progress import track
from pneumo.render import encode_jpeg
from pneumo.run_images import find_images
from pneumo.run_page import KINDS, Explanations, Run, Shown

_LONGEST = 360  # pixels of a film's longer side on the page
_AT_ONCE = 8
Pixels = npt.NDArray[np.uint8]


def explain_run(run: Run) -> Explanations:
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
        paths = [run.answers.paths[place] for place in run.chosen.places]
        films = [_read(file) for file in find_images(run.folder, root, classes, str(run.results["data_hash"]), paths)]
        why = ""
        explainer = Explainer(classifier)
    except (ConfigError, DataError) as error:
        missing = f"There are no films and maps here{why}: {error}"
        return Explanations({}, {}, missing, margin, uncertain)
    inputs = [square(Image.fromarray(film), classifier.image_size, classifier.crop_pct) for film in films]
    images = torch.from_numpy(np.stack(inputs))[:, None]
    maps: list[npt.NDArray[np.float32]] = []
    with track("Looking where answers come from", len(films)) as advance:
        for block in torch.split(images, _AT_ONCE):
            maps.extend(explainer(block).numpy())
            advance(len(maps))
    shown = iter([_show(run, *each, classifier.crop_pct) for each in zip(run.chosen.places, films, maps, strict=True)])
    kinds = {kind: list(islice(shown, len(getattr(run.chosen, kind)))) for kind in KINDS}
    forgotten = {part: rank_correlation(classifier, images[:_AT_ONCE], METHODS[0], part) for part in PARTS}
    return Explanations(kinds, forgotten, "", margin, uncertain)


def _read_uncertain(settings: dict[str, Any]) -> float | None:
    """Return the fraction of validation images that counts as uncertain; runs of earlier versions have none."""
    known = isinstance(group := settings.get("decision"), dict) and "uncertain" in group
    return select(settings, "decision.uncertain", float, type(None)) if known else None


def _read(path: Path) -> Pixels:
    try:
        return np.asarray(read_radiograph(path).image)
    except DataError as error:
        raise DataError(f"{path} {error}") from None


def _show(run: Run, place: int, film: Pixels, places: npt.NDArray[np.float32], crop_pct: float) -> Shown:
    names, answers = run.answers.classes, run.answers
    share = f"{answers.confidence[place]:.3f}"
    answer = f"{names[answers.predicted[place]]} {share if len(names) > 2 else f'({names[1]} {share})'}"
    small = Image.fromarray(film)
    small.thumbnail((_LONGEST, _LONGEST))
    pixels = np.asarray(small)
    mixed = overlay(pixels, places, crop_pct)
    truth, right = names[answers.label[place]], bool(answers.right[place])
    return Shown(answers.paths[place], encode_jpeg(pixels), encode_jpeg(mixed), truth, answer, right)
