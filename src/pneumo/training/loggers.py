"""What a run shows: its figures, and TensorBoard's scalars, images, curves, projector and HPARAMS table."""

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from textwrap import wrap

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import interpolate

from pneumo.common.text import code_block, escape_line
from pneumo.config.fingerprints import other_overrides
from pneumo.data.index import Radiograph, indices_of
from pneumo.data.previews import first_batch, load_films
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.predictions import Predictions
from pneumo.reporting.figures.charts import draw_learning_curves
from pneumo.reporting.figures.run_figures import MOST, draw_batch, draw_test
from pneumo.reporting.figures.style import save, summarise_image
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.results import Results, name_run
from pneumo.runs.status import EVENTS
from pneumo.training.callbacks import History
from pneumo.training.components import RunComponents

# TensorBoard shows the first five hyperparameters in alphabetical order: what else describes a run sorts after these.
_PARAMETERS = {"lr": "lr", "model": "model", "optimizer": "optimizer", "seed": "seed"} | {
    f"setup/{name}": name
    for name in ("batch_size", "data", "epochs", "experiment", "image_size", "overrides", "precision")
}
_SWEPT = "set/"  # sorts between `seed` and `setup/`, so that one of them is the fifth
# Of the metrics it shows the first five as they come.
_FIRST = ("test_accuracy", "test_auroc", "test_sensitivity", "test_specificity", "train_accuracy")
_LAST = ("best_epoch", "train_seconds", "samples_per_second", "parameters_trainable", "collapsed")
_METRICS = dict.fromkeys((*_FIRST, *(f"test_{name}" for name in METRICS), *_LAST))
_FOLDER, _TAG = "projector", "test"
PROJECTOR_FILES = (
    "projector_config.pbtxt",  # TensorBoard looks for this name in a run's folder
    *(f"{_FOLDER}/{_TAG}/{name}" for name in ("tensors.tsv", "metadata.tsv", "sprite.png")),  # names of SummaryWriter
    *(f"{_FOLDER}/{name}" for name in ("features.tsv", "images.tsv", "films.png")),  # of earlier versions
)
_HEADER = ("class", "called", "answer", "probability", "subtype", "file")
_SPRITE, _SHEET = 48, 8192  # pixels: of a small image, and the most that browsers accept for all of them
_LINE = 120  # characters that fit above a figure


class RunLogger(TensorBoardLogger):
    """Writes event files directly into the run's folder, so that TensorBoard shows one run with a short name."""

    def __init__(self, save_dir: str, projector: bool = False) -> None:
        """Set the run's folder, and whether the run writes what the PROJECTOR tab shows."""
        super().__init__(save_dir, name="", version="", default_hp_metric=False, filename_suffix=EVENTS)
        self.projector = projector

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars against the number of epochs, which compares runs whatever their batches."""
        shown = {name: value for name, value in metrics.items() if name != "epoch"}
        if "epoch" in metrics:  # counts those before it; the test comes when all are over
            step = round(metrics["epoch"]) + (not any(name.startswith("test/") for name in shown))
        super().log_metrics(shown, step)

    @rank_zero_only
    def log_config(self, yaml: str) -> None:
        """Show a configuration in the TEXT tab."""
        self.experiment.add_text("config", code_block(yaml, "yaml"))

    @rank_zero_only
    def log_images(self, images: Mapping[str, bytes], epochs: int) -> None:
        """Show PNG files, by their tags, in the IMAGES tab."""
        writer = self.experiment._get_file_writer()  # add_image would unpack each file and pack it anew
        for tag, png in images.items():
            writer.add_summary(summarise_image(tag, png), epochs)

    @rank_zero_only
    def log_predictions(self, predictions: Predictions, epochs: int) -> None:
        """Show precision-recall curves of the test in the PR CURVES tab; of three classes each against the rest.

        TensorBoard's thresholds are equidistant from 0 to 1. Ranks divide the images evenly among them; probabilities,
        most of which lie near 0 and 1, would leave few of the thresholds to tell images apart.
        """
        for name, side in predictions.against_rest.items():
            if side.has_both_classes:
                quantile = rankdata(side.score, "max") / len(side.score)
                tag = f"test/precision_recall/{escape_line(name)}"
                self.experiment.add_pr_curve(tag, side.positive, quantile, epochs)

    @rank_zero_only
    def log_results(
        self,
        results: Mapping[str, str | int | float | bool],
        lr: float,
        epochs: int,
        overrides: str,
        swept: Mapping[str, str | float],
    ) -> None:
        """Write the row of the HPARAMS table; call it once, at the end, since TensorBoard ignores later ones.

        `lr` is the rate that the run began with, `overrides` its other settings as they were given. Hyperparameters
        that differ within the run's sweep, `swept`, have a column each.
        """
        values = {**results, "lr": lr, "overrides": overrides}
        shown = {column: values[name] for column, name in _PARAMETERS.items()}
        self.log_hyperparams(
            {**shown, **{f"{_SWEPT}{name}": value for name, value in swept.items()}},
            {f"final/{name.replace('test_', '')}": float(values[name]) for name in _METRICS},
            step=epochs,
        )
        self.finalize("success")

    @rank_zero_only
    def save(self) -> None:
        """Flush; Lightning's own way also writes hparams.yaml, which .hydra/config.yaml makes superfluous."""
        self.experiment.flush()


def run_loggers(trainer: Trainer) -> list[RunLogger]:
    """Return those of a trainer's loggers that show figures, predictions and results too."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]


def write_projector(folder: Path, logger: RunLogger, predictions: Predictions, components: RunComponents) -> None:
    """Write features, classes, predictions and small images of all test images, and the file that names them."""
    of_path = {image.path: image for image in components.datamodule.splits["test"]}
    images = [of_path[path] for path in predictions.paths]
    rows = []
    outputs = zip(predictions.label, predictions.predicted, predictions.confidence, strict=True)
    for image, (label, predicted, confidence) in zip(images, outputs, strict=True):
        names = predictions.classes[label], predictions.classes[predicted]
        right = "right" if label == predicted else "wrong"
        rows.append([escape_line(cell) for cell in (*names, right, f"{confidence:.4f}", image.subtype, image.path)])
    size = min(_SPRITE, _SHEET // math.ceil(math.sqrt(len(images))))
    pixels = torch.from_numpy(load_films(components.datamodule, images))[:, None].float() / 255
    small = interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    with suppress(OSError):  # an empty folder of an earlier run, which TensorBoard would warn of
        (folder / _FOLDER / _TAG).rmdir()
    features = _features(images, components)
    logger.experiment.add_embedding(features, rows, small, global_step=_FOLDER, tag=_TAG, metadata_header=_HEADER)


def _features(images: list[Radiograph], components: RunComponents) -> Tensor:
    """Compute the backbone's features of images, (n, D), unless the run was served with them."""
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
    """Plot the first training batch as the network is to see it, unless figures=false."""
    datamodule, trainer = components.datamodule, components.trainer
    if not (cfg.figures and trainer.is_global_zero):
        return
    batch, pixels = first_batch(datamodule, trainer.world_size, MOST)
    size = min(datamodule.batch_size, len(datamodule.splits["train"]))
    settings = datamodule.augmentation.settings.items() if datamodule.augmentation.active else ()
    how = ", ".join(f"{name} {value:g}" for name, value in settings if value) or "none"
    words = f"First training batch: {len(batch)} of its {size} images, with their classes. Augmentation: {how}"
    titles = [name_run({**cfg.choices, "seed": cfg.seed}), *wrap(words, _LINE)]
    figure = draw_batch([datamodule.classes[image.label] for image in batch], pixels, titles)
    png = save({"training_batch": figure}, folder / "figures")["png"]
    for logger in run_loggers(trainer):
        logger.log_images({"train/batch": png["training_batch"]}, 0)


def show_test(
    folder: Path, cfg: DictConfig, results: Results, components: RunComponents, swept: Mapping[str, str | float]
) -> None:
    """Plot training and test, unless figures=false, and write TensorBoard's last entries.

    `swept` has the values of hyperparameters that differ within the run's sweep.
    """
    predictions, epochs = read_predictions(folder, results), components.trainer.current_epoch
    png = _draw(folder, predictions, results, components) if cfg.figures else {}
    for logger in run_loggers(components.trainer):
        logger.log_images(png, epochs)
        logger.log_predictions(predictions, epochs)
        if logger.projector:
            write_projector(folder, logger, predictions, components)
        overrides = other_overrides(HydraConfig.get().overrides.task)
        logger.log_results(results, cfg.optimizer.lr, epochs, overrides, swept)


def _draw(folder: Path, predictions: Predictions, results: Results, components: RunComponents) -> dict[str, bytes]:
    """Plot training and test; return the PNG files by their tags in TensorBoard."""
    datamodule, trainer = components.datamodule, components.trainer
    of_path = {image.path: image for image in datamodule.splits["test"]}
    figures = draw_test(
        folder, predictions, results, lambda paths: load_films(datamodule, [of_path[path] for path in paths])
    )
    images = {stage: len(datamodule.splits[stage]) for stage in ("train", "val")}
    history = next(callback for callback in trainer.callbacks if isinstance(callback, History))  # type: ignore[attr-defined]
    figures["learning_curves"] = draw_learning_curves(history.epochs, images, results)
    png = save(figures, folder / "figures")["png"]
    return {f"{'train' if name == 'learning_curves' else 'test'}/{name}": content for name, content in png.items()}
