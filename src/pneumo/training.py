"""One run: build, fit, test once, write what came out."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType

from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from pneumo import projector, record
from pneumo.building import Parts, build, refusals
from pneumo.decisions import decide_by_validation
from pneumo.errors import TrainingError
from pneumo.evaluation.prediction_files import read_predictions
from pneumo.evaluation.results import Results, report, write_results
from pneumo.features import is_shortened, serve_features, uses_features
from pneumo.hyperparameters import other_overrides
from pneumo.passes import FeatureOptions
from pneumo.run_directory import explained_failures, prepare_directory
from pneumo.run_lock import run_lock
from pneumo.showing import show_batch, show_test
from pneumo.stops import explained_stops
from pneumo.tensorboard import RunLogger
from pneumo.warm_up import warm_up_head

_log = logging.getLogger(__name__)


def run(
    cfg: DictConfig,
    overwrite: bool = False,
    resume: bool = False,
    begun: Callable[[], None] = lambda: None,
    swept: Mapping[str, str | float] = MappingProxyType({}),
) -> Results:
    """Train, test with the checkpoint that validation chose, write the run's files, and return its results.

    Args:
        cfg: Composed from conf/train.yaml.
        overwrite: Put this run in the place of another one that has finished in its folder.
        resume: Go on from the last checkpoint in the run's folder, if there is one that this run can go on from.
        begun: Called when all is built, and what an earlier run has left in the folder is gone.
        swept: Values of the hyperparameters that differ within the run's sweep, for TensorBoard.

    Raises:
        PneumoError: A user's mistake.
    """
    OmegaConf.set_readonly(cfg, True)  # results and checkpoints are recognised by the configuration as composed
    started = time.perf_counter()
    parts = build(cfg)
    trainer, folder = parts.trainer, Path(cfg.paths.run_dir)
    with refusals("features", cfg):
        features = FeatureOptions(**cfg.features)
    last = folder / "checkpoints" / "last.ckpt"
    with run_lock(folder) if trainer.is_global_zero else nullcontext(), explained_failures(last, sweep=resume):
        ckpt_path = prepare_directory(folder, cfg, parts, overwrite, resume)
        begun()
        with explained_stops(last, sweep=resume):
            costs = _fit_and_test(folder, cfg, features, parts, ckpt_path)
            if not trainer.is_global_zero:
                return {}
            costs |= {"total_seconds": time.perf_counter() - started}
            results = {**_record(cfg, parts, folder, _best_checkpoint(trainer)), **costs}
            _write(folder, cfg, results, parts, swept)
    report(folder, results)
    return results


def _fit_and_test(
    folder: Path, cfg: DictConfig, features: FeatureOptions, parts: Parts, ckpt_path: str | None
) -> Results:
    """Train, calibrate and test; return what that cost."""
    datamodule, classifier, trainer = parts
    for logger in _loggers(trainer):
        logger.log_config(OmegaConf.to_yaml(cfg, resolve=True))
    _log.info("running on %s in %s, writing to %s", trainer.strategy.root_device, trainer.precision, folder)
    cached, cache_seconds = _prepare(cfg, features, parts, resumed=ckpt_path is not None)
    show_batch(folder, cfg, parts, _loggers(trainer))
    trainer.fit(classifier, datamodule=datamodule, ckpt_path=ckpt_path)
    cost = record.measure_cost(trainer, datamodule)  # before the test, which sets callbacks back to the best epoch
    best = _best_checkpoint(trainer)
    decide_by_validation(cfg, features, parts, best)
    trainer.test(classifier, datamodule=datamodule, ckpt_path=best, verbose=False)
    return {**cost, "feature_cache": cached, "cache_seconds": cache_seconds}


def _loggers(trainer: Trainer) -> list[RunLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]


def _write(
    folder: Path,
    cfg: DictConfig,
    results: Results,
    parts: Parts,
    swept: Mapping[str, str | float],
) -> None:
    """Write figures, TensorBoard's last lines and, when all else is there, results.json."""
    answers, epochs, loggers = read_predictions(folder, results), parts.trainer.current_epoch, _loggers(parts.trainer)
    if cfg.figures:
        show_test(folder, answers, results, parts, loggers)
    for logger in loggers:
        logger.log_answers(answers, epochs)
        if logger.projector:
            projector.write_projector(folder, answers, *parts[:2], parts.trainer.strategy.root_device)
        overrides = other_overrides(HydraConfig.get().overrides.task)
        logger.log_results(results, cfg.optimizer.lr, epochs, overrides, swept)
    write_results(folder / "results.json", results)


def _record(cfg: DictConfig, parts: Parts, folder: Path, best: str) -> Results:
    return {
        **record.describe(cfg, *parts),
        **record.measure_quality(parts.trainer, best),
        **record.write_answers(folder, Path(best), *parts[:2]),
    }


def _prepare(cfg: DictConfig, options: FeatureOptions, parts: Parts, resumed: bool) -> tuple[bool, float]:
    """Do what all epochs would repeat, unless an earlier run has done it, and what comes before the first.

    Args:
        cfg: The run's configuration.
        options: Of the feature cache.
        parts: The run's.
        resumed: Whether training resumes from a checkpoint, so that the head is not warmed up again.

    Returns:
        Whether the run trains on cached features, and the seconds that it took to have them, or the decoded images.
    """
    started = time.perf_counter()
    datamodule, classifier, trainer = parts
    cached = uses_features(options, classifier, trainer)
    if cached:
        serve_features(options, datamodule, classifier, trainer)
    elif not is_shortened(trainer):
        datamodule.open_images()
        if classifier.fine_tuning and classifier.fine_tuning.warm_up and not resumed:
            warm_up_head(datamodule, classifier, trainer.strategy.root_device, cfg.loss.balance)
    return cached, time.perf_counter() - started


def _best_checkpoint(trainer: Trainer) -> str:
    checkpoint = trainer.checkpoint_callback
    if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_path:
        return checkpoint.best_model_path
    raise TrainingError(
        "No checkpoint was written, so there is none to test: trainer.fast_dev_run=true writes none, nor does a "
        "configuration without validation, or a trainer.max_steps within the first epoch. Take trainer=smoke for a "
        "quick try."
    )
