"""A run as one HTML page, which needs no network and opens from the disk: figures, films, where answers come from."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import OmegaConf
from PIL import Image

from pneumo.console import tell
from pneumo.data.images import square
from pneumo.data.index import default_root
from pneumo.data.radiograph import read_radiograph
from pneumo.errors import ConfigError, DataError
from pneumo.evaluation.answers import Predictions
from pneumo.evaluation.distance import distance
from pneumo.evaluation.film_figures import Chosen, choose
from pneumo.evaluation.prediction_files import read_predictions
from pneumo.evaluation.results import NO_IMAGE, SUBTYPES, TITLES, Results, count_tested, read_results
from pneumo.evaluation.run_config import read_config, resolve_references, select
from pneumo.evaluation.run_figures import embed_figures
from pneumo.explanations.maps import METHODS, Explainer
from pneumo.explanations.overlays import overlay
from pneumo.explanations.sanity import PARTS, rank_correlation
from pneumo.models.classifier import Classifier
from pneumo.progress import track
from pneumo.render import render
from pneumo.run_images import find_images
from pneumo.run_manifest import write_report

_LONGEST = 360  # pixels of a film's longer side on the page
_AT_ONCE = 8
Pixels = npt.NDArray[np.uint8]


class Shown(NamedTuple):
    """A film on the page.

    Attributes:
        path: Relative to the data's root.
        film: JPEG, in base64.
        map: The film with its map, likewise.
        truth: Its class.
        answer: What it was called, and how probable that is.
        right: Whether that is right.
    """

    path: str
    film: str
    map: str
    truth: str
    answer: str
    right: bool


class Explained(NamedTuple):
    """What the page tells of where answers come from.

    Attributes:
        films: By kind: right, wrong, uncertain.
        forgotten: How like themselves maps stay when head or network forget what they learned; see `rank_correlation`.
        missing: Why there is nothing of this.
    """

    films: dict[str, list[Shown]]
    forgotten: dict[str, float]
    missing: str = ""


class Band(NamedTuple):
    """How the test went within and outside of what is uncertain: shares of images, and of right answers among them."""

    share: float
    right_inside: float
    right_outside: float


def write_run_page(folder: Path, page: Path) -> None:
    """Write the page of the finished run in a folder; films and maps are on it where checkpoint and data are at hand.

    Raises:
        ConfigError: No run has finished there, or a file of it is missing.
    """
    results = read_results(folder)
    if results is None:
        raise ConfigError(
            f"{folder} holds no results.json, and the page is of a run that has finished: name its folder."
        )
    answers = read_predictions(folder, results)
    chosen = choose(answers, float(results["threshold"]))
    margin, uncertain, config = None, None, None
    try:
        classifier = Classifier.load_from_checkpoint(folder / "checkpoints" / "best.ckpt").eval()
        config = read_config(folder)
        settings = resolve_references(config)
        uncertain = _read_uncertain(settings)
        margin = None if uncertain is None else classifier.hparams["margin"]
        explained = _explain(classifier, answers, chosen, partial(_find, folder, settings, results))
    except ConfigError as error:
        explained = Explained({}, {}, f"There are no films and maps here, since the run is not whole: {error}")
    text = render(
        "run.html",
        title=f"{results['model']} · {results['optimizer']} · seed {results['seed']}",
        results=results,
        tested=count_tested(results),
        metrics=_metrics(results),
        facts=_facts(results),
        band=_band(answers, float(results["threshold"]), margin),
        margin=margin,
        uncertain=uncertain,
        positive=answers.classes[-1],
        **explained._asdict(),
        rights=chosen.rights,
        wrongs=chosen.wrongs,
        figures=embed_figures(folder),
        config=OmegaConf.to_yaml(config) if config else "",
    )
    write_report(page, text)
    tell(f"{'page':<12} {page}")


def _read_uncertain(settings: dict[str, Any]) -> float | None:
    """Return the fraction of validation images that counts as uncertain; runs of earlier versions have none."""
    known = isinstance(group := settings.get("decision"), dict) and "uncertain" in group
    return select(settings, "decision.uncertain", float, type(None)) if known else None


def _find(folder: Path, settings: dict[str, Any], results: Results, paths: Sequence[str]) -> list[Path]:
    """Return the files of the run's images; raise a DataError if they are not all those of its data set."""
    named = select(settings, "data.root", str, type(None))
    classes = [str(name) for name in select(settings, "data.classes", list)]
    root = default_root() if named is None else Path(named)
    return find_images(folder, root, classes, str(results["data_hash"]), paths)


def _metrics(results: Results) -> list[tuple[str, Any, Any, Any]]:
    """Give title, value and interval of each metric that has one."""
    names = dict(TITLES)
    names |= {f"sensitivity_{name}": f"sensitivity to {name} pneumonia" for name in SUBTYPES}
    names |= {"auroc_bacterial_viral": "AUROC, bacterial against viral"}
    keys = {title: f"test_{name}" for name, title in names.items() if results.get(f"test_{name}", NO_IMAGE) != NO_IMAGE}
    return [(title, results[key], results[f"{key}_ci_low"], results[f"{key}_ci_high"]) for title, key in keys.items()]


def _facts(results: Results) -> dict[str, str]:
    """Tell what the run was, and what it cost."""
    return {
        "experiment": f"{results['experiment']}, data {results['data']}, split {results['split']}",
        "images": f"{results['image_size']} x {results['image_size']} pixels, batches of {results['batch_size']}",
        "tested": f"epoch {results['best_epoch']} of {results['epochs']}",
        "decision": "the likeliest class"
        if results["threshold_rule"] == "likeliest"
        else f"positive above {results['threshold']:.4g} ({results['threshold_rule']})",
        "temperature": f"{results['temperature']:.3f}",
        "parameters": f"{results['parameters_total']:,}, of which {results['parameters_trainable']:,} were trained",
        "training": f"{results['train_seconds']:,.0f} s, {results['samples_per_second']:,.0f} images a second",
        "machine": f"{results['device']}, {results['precision']}",
        "pneumo": f"{results['pneumo_version']} ({str(results['git_commit'])[:12]})",
        "PyTorch": str(results["torch_version"]),
    }


def _band(answers: Predictions, threshold: float, margin: float | None) -> Band | None:
    if margin is None:
        return None
    right, near = answers.right, distance(answers.probability.astype(np.float32), threshold) <= margin
    return Band(float(near.mean()), *(float(right[part].mean()) if part.any() else 0.0 for part in (near, ~near)))


def _explain(
    classifier: Classifier,
    answers: Predictions,
    chosen: Chosen,
    find: Callable[[Sequence[str]], list[Path]],
) -> Explained:
    """Show the chosen films with their maps, or say why not."""
    try:
        films = [_read(path) for path in find([answers.paths[place] for place in chosen.places])]
    except DataError as error:
        return Explained({}, {}, f"There are no films and maps here, since the test's are not all at hand: {error}")
    try:
        explainer = Explainer(classifier)
    except ConfigError as error:
        return Explained({}, {}, f"There are no films and maps here: {error}")
    inputs = [square(Image.fromarray(film), classifier.image_size, classifier.crop_pct) for film in films]
    images = torch.from_numpy(np.stack(inputs))[:, None]
    maps: list[npt.NDArray[np.float32]] = []
    with track("Looking where answers come from", len(films)) as advance:
        for block in torch.split(images, _AT_ONCE):
            maps.extend(explainer(block).numpy())
            advance(len(maps))
    each = zip(chosen.places, films, maps, strict=True)
    shown = [_show(answers, place, film, seen, classifier.crop_pct) for place, film, seen in each]
    first, second = len(chosen.right), len(chosen.right) + len(chosen.wrong)
    kinds = {"right": shown[:first], "wrong": shown[first:second], "uncertain": shown[second:]}
    return Explained(kinds, {part: rank_correlation(classifier, images[:_AT_ONCE], METHODS[0], part) for part in PARTS})


def _read(path: Path) -> Pixels:
    try:
        return np.asarray(read_radiograph(path).image)
    except DataError as error:
        raise DataError(f"{path} {error}") from None


def _show(answers: Predictions, place: int, film: Pixels, seen: npt.NDArray[np.float32], crop_pct: float) -> Shown:
    truth, called = (answers.classes[part[place]] for part in (answers.label, answers.predicted))
    share = f"{answers.confidence[place]:.3f}"
    answer = f"{called} ({answers.classes[1]} {share})" if len(answers.classes) == 2 else f"{called} {share}"
    small = Image.fromarray(film)
    small.thumbnail((_LONGEST, _LONGEST))
    mixed = overlay(np.asarray(small), seen, crop_pct)
    return Shown(answers.paths[place], _jpeg(np.asarray(small)), _jpeg(mixed), truth, answer, truth == called)


def _jpeg(pixels: Pixels) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return base64.b64encode(stream.getvalue()).decode()
