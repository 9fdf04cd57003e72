"""What a run shows of itself: figures in its folder, and the same and more in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pneumo.building import RunComponents
from pneumo.callbacks import History
from pneumo.data.films import first_batch, load_films
from pneumo.evaluation.answers import Predictions
from pneumo.evaluation.figures import name_run, save
from pneumo.evaluation.film_figures import MOST, draw_batch
from pneumo.evaluation.learning_curves import draw_learning_curves
from pneumo.evaluation.prediction_files import read_predictions
from pneumo.evaluation.results import Results
from pneumo.evaluation.run_figures import draw_test
from pneumo.hyperparameters import other_overrides
from pneumo.projector import write_projector

_LINE = 120  # characters that fit above a figure


def show_batch(folder: Path, cfg: DictConfig, components: RunComponents) -> None:
    """Plot the first training batch as the network is to see it, unless figures=false."""
    datamodule, trainer = components.datamodule, components.trainer
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
    for logger in components.loggers:
        logger.log_images({"train/batch": png["training_batch"]}, 0)


def show_test(
    folder: Path,
    cfg: DictConfig,
    results: Results,
    components: RunComponents,
    swept: Mapping[str, str | float],
) -> None:
    """Plot training and test, unless figures=false, and write TensorBoard's last entries.

    Args:
        folder: The run's, with its predictions.csv and validation.csv.
        cfg: The run's configuration.
        results: What results.json is to hold.
        components: The run's, with the tested weights.
        swept: Values of the hyperparameters that differ within the run's sweep.
    """
    answers, epochs = read_predictions(folder, results), components.trainer.current_epoch
    png = _draw(folder, answers, results, components) if cfg.figures else {}
    for logger in components.loggers:
        logger.log_images(png, epochs)
        logger.log_answers(answers, epochs)
        if logger.projector:
            write_projector(folder, logger, answers, components)
        overrides = other_overrides(HydraConfig.get().overrides.task)
        logger.log_results(results, cfg.optimizer.lr, epochs, overrides, swept)


def _draw(folder: Path, answers: Predictions, results: Results, components: RunComponents) -> dict[str, bytes]:
    """Plot training and test; return the PNG files by their tags in TensorBoard."""
    datamodule, trainer = components.datamodule, components.trainer
    place = {image.path: image for image in datamodule.splits["test"]}
    figures = draw_test(folder, answers, results, lambda paths: load_films(datamodule, [place[path] for path in paths]))
    images = {stage: len(datamodule.splits[stage]) for stage in ("train", "val")}
    history = next(callback for callback in trainer.callbacks if isinstance(callback, History))  # type: ignore[attr-defined]
    figures["learning_curves"] = draw_learning_curves(history.epochs, images, results)
    png = save(figures, folder / "figures")["png"]
    return {f"{'train' if name == 'learning_curves' else 'test'}/{name}": content for name, content in png.items()}
