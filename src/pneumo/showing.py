"""What a run shows of itself: figures in its folder, and the same and more in TensorBoard."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from omegaconf import DictConfig

from pneumo.building import Parts
from pneumo.callbacks import History
from pneumo.data.films import first_batch, load_films
from pneumo.evaluation.answers import Predictions
from pneumo.evaluation.figures import name_run, save
from pneumo.evaluation.film_figures import MOST, draw_batch
from pneumo.evaluation.learning_curves import draw_learning_curves
from pneumo.evaluation.results import Results
from pneumo.evaluation.run_figures import draw_test
from pneumo.tensorboard import RunLogger

_LINE = 120  # characters that fit above a figure


def show_batch(folder: Path, cfg: DictConfig, parts: Parts, loggers: Sequence[RunLogger]) -> None:
    """Draw the first training batch as the network is to see it, and put it before all else in TensorBoard.

    Nothing is drawn with figures=false.
    """
    datamodule, _, trainer = parts
    if not (cfg.figures and trainer.is_global_zero):
        return
    batch, films = first_batch(datamodule, trainer.world_size, MOST)
    size = min(datamodule.batch_size, len(datamodule.splits["train"]))
    settings = datamodule.augmentation.settings.items() if datamodule.augmentation.active else ()
    how = ", ".join(f"{name} {value:g}" for name, value in settings if value) or "none"
    words = f"First training batch: {len(batch)} of its {size} images, with their classes. Augmentation: {how}"
    titles = [name_run({**cfg.choices, "seed": cfg.seed}), *wrap(words, _LINE)]
    figure = draw_batch([datamodule.classes[image.label] for image in batch], films, titles)
    png = save({"training_batch": figure}, folder / "figures")["png"]
    for logger in loggers:
        logger.log_images({"train/batch": png["training_batch"]}, 0)


def show_test(folder: Path, answers: Predictions, results: Results, parts: Parts, loggers: Sequence[RunLogger]) -> None:
    """Draw what training and test came to, and show it in TensorBoard.

    Args:
        folder: The run's, with its validation.csv.
        answers: To the test images.
        results: What results.json is to hold.
        parts: The run's, with the tested weights.
        loggers: The run's.
    """
    datamodule, _, trainer = parts
    place = {image.path: image for image in datamodule.splits["test"]}
    figures = draw_test(folder, answers, results, lambda paths: load_films(datamodule, [place[path] for path in paths]))
    images = {stage: len(datamodule.splits[stage]) for stage in ("train", "val")}
    history = next(callback for callback in trainer.callbacks if isinstance(callback, History))  # type: ignore[attr-defined]
    figures["learning_curves"] = draw_learning_curves(history.epochs, images, results)
    png = save(figures, folder / "figures")["png"]
    for logger in loggers:
        tags = {name: f"{'train' if name == 'learning_curves' else 'test'}/{name}" for name in png}
        logger.log_images({tags[name]: content for name, content in png.items()}, trainer.current_epoch)
