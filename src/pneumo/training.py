"""One run: build, fit, test once, write what came out."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from pneumo import projector, record
from pneumo.building import Parts, build, refusals, run_settings
from pneumo.checkpoints import check_resumable, resumable_checkpoint
from pneumo.data.splits import write_splits
from pneumo.decisions import decide_by_validation
from pneumo.errors import TrainingError
from pneumo.evaluation.results import Results, check_overwrite, report, write_results
from pneumo.evaluation.run_figures import read_test
from pneumo.features import is_shortened, serve_features, uses_features
from pneumo.fingerprints import recorded_hashes
from pneumo.hyperparameters import other_overrides
from pneumo.passes import FeatureOptions
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
    datamodule, classifier, trainer = parts = build(cfg)
    folder = Path(cfg.paths.run_dir)
    with refusals("features", cfg):
        features = FeatureOptions(**cfg.features)
    ckpt_path = _take(folder, cfg, parts, overwrite, resume)
    begun()
    loggers = [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
    for logger in loggers:
        logger.log_config(OmegaConf.to_yaml(cfg, resolve=True))
    _log.info("running on %s in %s, writing to %s", trainer.strategy.root_device, trainer.precision, folder)

    with explained_stops(folder / "checkpoints" / "last.ckpt", sweep=resume):
        cached, cache_seconds = _prepare(cfg, features, parts, resumed=ckpt_path is not None)
        show_batch(folder, cfg, parts, loggers)
        trainer.fit(classifier, datamodule=datamodule, ckpt_path=ckpt_path)
        cost = record.measure_cost(trainer, datamodule)  # before the test, which sets callbacks back to the best epoch
        best = _best_checkpoint(trainer)
        decide_by_validation(cfg, features, parts, best)
        trainer.test(classifier, datamodule=datamodule, ckpt_path=best, verbose=False)
    if not trainer.is_global_zero:
        return {}

    cost |= {"feature_cache": cached, "cache_seconds": cache_seconds, "total_seconds": time.perf_counter() - started}
    results = {**_record(cfg, parts, folder, best), **cost}
    _write(folder, cfg, results, parts, loggers, swept)
    report(folder, results)
    return results


def _take(folder: Path, cfg: DictConfig, parts: Parts, overwrite: bool, resume: bool) -> str | None:
    """Prepare the run directory: resume or clear it, then write the splits.

    Returns:
        The checkpoint to resume from; None for a run from scratch.
    """
    settings = run_settings(cfg, parts.datamodule)
    ckpt_path: str | None = None
    if resume and not overwrite:
        ckpt_path = resumable_checkpoint(folder / "checkpoints" / "last.ckpt", settings)
    elif cfg.ckpt_path is not None and not overwrite:
        ckpt_path = cfg.ckpt_path
        check_resumable(Path(cfg.ckpt_path), folder / "checkpoints", settings)
    if not overwrite:
        check_overwrite(folder, recorded_hashes(cfg), parts.datamodule.data_hash)
    if parts.trainer.is_global_zero:
        if ckpt_path is None:
            _clear(folder)
        write_splits(folder / "splits.csv", parts.datamodule.splits, parts.datamodule.classes)
    return ckpt_path


def _write(
    folder: Path,
    cfg: DictConfig,
    results: Results,
    parts: Parts,
    loggers: Sequence[RunLogger],
    swept: Mapping[str, str | float],
) -> None:
    """Write figures, TensorBoard's last lines and, when all else is there, results.json."""
    answers, epochs = read_test(folder, results), parts.trainer.current_epoch
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
        "configuration without callbacks.best or without validation. Take trainer=smoke for a quick try."
    )


def _clear(folder: Path) -> None:
    """Remove what an earlier run left in this folder: it would be taken for this run's."""
    names = ("results.json", "predictions.csv", "validation.csv", "splits.csv", "report.html", "MODEL_CARD.md")
    stale = [*(folder / name for name in names), *folder.glob("events.out.tfevents.*"), folder / projector.CONFIG]
    for pattern in ("checkpoints/*.ckpt", "figures/*.png", "figures/*.svg", f"{projector.FOLDER}/*"):
        stale += folder.glob(pattern)
    for path in stale:
        path.unlink(missing_ok=True)
