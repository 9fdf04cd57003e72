"""Displays of a run: figures, and the images, curves, projector and HPARAMS row in TensorBoard."""

import math
from contextlib import suppress
from pathlib import Path
from textwrap import wrap

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.functional import interpolate

from pneumo.common.text import escape_line
from pneumo.data.index import Radiograph, indices_of
from pneumo.data.previews import first_batch, load_images
from pneumo.metrics.predictions import Predictions
from pneumo.reporting.figures.charts import draw_learning_curves
from pneumo.reporting.figures.run_figures import MAX_IMAGES, draw_batch, draw_test
from pneumo.reporting.figures.style import save
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.results import Results, run_title
from pneumo.training.callbacks import History
from pneumo.training.components import RunComponents
from pneumo.training.loggers import RunLogger
from pneumo.training.tracking import Setup, run_loggers

_FOLDER, _TAG = "projector", "test"
PROJECTOR_FILES = (
    "projector_config.pbtxt",  # TensorBoard expects this name in the run folder
    *(f"{_FOLDER}/{_TAG}/{name}" for name in ("tensors.tsv", "metadata.tsv", "sprite.png")),  # SummaryWriter's names
    *(f"{_FOLDER}/{name}" for name in ("features.tsv", "images.tsv", "films.png")),  # earlier versions
)
_HEADER = ("class", "predicted class", "outcome", "probability", "subtype", "file")
_THUMBNAIL_SIZE, _MAX_SPRITE_SIZE = 48, 8192  # pixels; browsers accept no larger sprite image
_TITLE_WIDTH = 120  # characters above a figure


def write_projector(folder: Path, logger: RunLogger, predictions: Predictions, components: RunComponents) -> None:
    """Write TensorBoard's projector: features, classes, predictions and thumbnails of all test images."""
    by_path = {image.path: image for image in components.datamodule.splits["test"]}
    images = [by_path[path] for path in predictions.paths]
    rows = []
    outputs = zip(predictions.label, predictions.predicted, predictions.confidence, strict=True)
    for image, (label, predicted, confidence) in zip(images, outputs, strict=True):
        names = predictions.classes[label], predictions.classes[predicted]
        outcome = "correct" if label == predicted else "wrong"
        rows.append([escape_line(cell) for cell in (*names, outcome, f"{confidence:.4f}", image.subtype, image.path)])
    size = min(_THUMBNAIL_SIZE, _MAX_SPRITE_SIZE // math.ceil(math.sqrt(len(images))))
    pixels = torch.from_numpy(load_images(components.datamodule, images))[:, None].float() / 255
    thumbnails = interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    with suppress(OSError):  # TensorBoard warns if an earlier run left this folder empty
        (folder / _FOLDER / _TAG).rmdir()
    features = _features(images, components)
    logger.experiment.add_embedding(features, rows, thumbnails, global_step=_FOLDER, tag=_TAG, metadata_header=_HEADER)


def _features(images: list[Radiograph], components: RunComponents) -> Tensor:
    """Return the backbone's features of images, (n, D), from the cache, or compute them if the run has no cache."""
    datamodule, classifier = components.datamodule, components.classifier
    device = components.trainer.strategy.root_device
    indices = indices_of(images, datamodule.radiographs)
    if datamodule.features is not None:
        return torch.from_numpy(datamodule.features[indices])
    classifier.eval().to(device)
    with torch.inference_mode():
        blocks = datamodule.image_blocks(indices, datamodule.batch_size)
        return torch.cat([classifier.backbone(block.to(device)).float().cpu() for block in blocks])


def show_batch(folder: Path, cfg: DictConfig, components: RunComponents) -> None:
    """Plot the first training batch as the network receives it, unless figures=false."""
    datamodule, trainer = components.datamodule, components.trainer
    if not (cfg.figures and trainer.is_global_zero):
        return
    batch, pixels = first_batch(datamodule, trainer.world_size, MAX_IMAGES)
    size = min(datamodule.batch_size, len(datamodule.splits["train"]))
    settings = datamodule.augmentation.settings.items() if datamodule.augmentation.active else ()
    augmentation = ", ".join(f"{name} {value:g}" for name, value in settings if value) or "none"
    title = f"First training batch: {len(batch)} of {size} images with their classes. Augmentation: {augmentation}"
    titles = [run_title({**cfg.choices, "seed": cfg.seed}), *wrap(title, _TITLE_WIDTH)]
    figure = draw_batch([datamodule.classes[image.label] for image in batch], pixels, titles)
    png = save({"training_batch": figure}, folder / "figures")["png"]
    for logger in run_loggers(trainer):
        logger.log_images({"train/batch": png["training_batch"]}, 0)


def show_test_results(folder: Path, cfg: DictConfig, results: Results, components: RunComponents, setup: Setup) -> None:
    """Plot training and test, unless figures=false, and pass figures, predictions and results to the loggers."""
    predictions, epochs = read_predictions(folder, results), components.trainer.current_epoch
    png = _plot(folder, predictions, results, components) if cfg.figures else {}
    for logger in run_loggers(components.trainer):
        logger.log_images(png, epochs)
        logger.log_predictions(predictions, epochs)
        if isinstance(logger, RunLogger) and logger.projector:
            write_projector(folder, logger, predictions, components)
        logger.log_results(results, setup, epochs)


def _plot(folder: Path, predictions: Predictions, results: Results, components: RunComponents) -> dict[str, bytes]:
    """Plot training and test; return the PNG files by their tags in TensorBoard."""
    datamodule = components.datamodule
    by_path = {image.path: image for image in datamodule.splits["test"]}
    figures = draw_test(
        folder, predictions, results, lambda paths: load_images(datamodule, [by_path[path] for path in paths])
    )
    images = {stage: len(datamodule.splits[stage]) for stage in ("train", "val")}
    figures["learning_curves"] = draw_learning_curves(components.callback(History).epochs, images, results)
    png = save(figures, folder / "figures")["png"]
    return {f"{'train' if name == 'learning_curves' else 'test'}/{name}": content for name, content in png.items()}
