"""One run: build, fit, calibrate, test and write results."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from pneumo.config.output_folder import run_lock
from pneumo.errors import TrainingError
from pneumo.reporting.run_summary import report
from pneumo.runs.results import Results, write_results
from pneumo.training.components import RunComponents, build
from pneumo.training.displays import show_batch, show_test_results
from pneumo.training.evaluation import calibrate, logged_metrics, record_predictions, store_internal_test
from pneumo.training.feature_cache import is_shortened, serve_features, uses_features, warm_up_head
from pneumo.training.metadata import measure_cost, run_metadata
from pneumo.training.resumption import handle_disk_errors, handle_interruptions
from pneumo.training.run_directory import prepare_directory
from pneumo.training.tracking import Setup, closing_loggers, describe_setup, run_loggers

_log = logging.getLogger(__name__)


def run(
    cfg: DictConfig,
    overwrite: bool = False,
    resume: bool = False,
    on_start: Callable[[], None] = lambda: None,
    swept: Mapping[str, str | float] = MappingProxyType({}),
) -> Results:
    """Train a classifier, test its best checkpoint, write the run's files and return its results.

    Args:
        cfg: Configuration composed from conf/train.yaml.
        overwrite: Replace a finished run of another configuration in the folder.
        resume: Resume from the last checkpoint in the run folder, if it is compatible with this run.
        on_start: Callback for when all components are built and the run folder is prepared.
        swept: Values of the hyperparameters that differ within the run's sweep, for the loggers.

    Raises:
        PneumoError: The configuration, data, weights or disk are at fault, or training has diverged.
    """
    OmegaConf.set_readonly(cfg, True)  # the hash of the composed configuration identifies results and checkpoints
    started = time.perf_counter()
    components, folder = build(cfg), Path(cfg.paths.run_dir)
    datamodule, classifier, trainer = components.datamodule, components.classifier, components.trainer
    last = folder / "checkpoints" / "last.ckpt"
    with run_lock(folder) if trainer.is_global_zero else nullcontext(), handle_disk_errors(last):
        ckpt_path = prepare_directory(folder, cfg, components, overwrite, resume)
        on_start()
        setup = describe_setup(cfg, trainer, swept)
        with handle_interruptions(last), closing_loggers(trainer):
            cost = _fit(folder, cfg, components, setup, ckpt_path)
            best_path = _best_checkpoint(trainer)
            best = calibrate(cfg, components, Path(best_path))
            trainer.test(classifier, datamodule=datamodule, ckpt_path=best_path, verbose=False)
            if not trainer.is_global_zero:
                return {}
            cost |= {"total_seconds": time.perf_counter() - started}
            results = {
                **run_metadata(cfg, components),
                **logged_metrics(best),
                **record_predictions(folder, best["validation"], components),
                **cost,
            }
            store_internal_test(Path(best_path), components)
            show_test_results(folder, cfg, results, components, setup)
            write_results(folder / "results.json", results)
    report(folder, results)
    return results


def _fit(folder: Path, cfg: DictConfig, components: RunComponents, setup: Setup, ckpt_path: str | None) -> Results:
    """Fit the classifier and return the cost of training."""
    trainer = components.trainer
    for logger in run_loggers(trainer):
        logger.log_setup(setup)
    _log.info("Training on %s, precision %s, run folder %s", trainer.strategy.root_device, trainer.precision, folder)
    started = time.perf_counter()
    cached = _prepare(cfg, components, resumed=ckpt_path is not None)
    cache_seconds = time.perf_counter() - started
    show_batch(folder, cfg, components)
    trainer.fit(components.classifier, datamodule=components.datamodule, ckpt_path=ckpt_path)
    # Before the test, which restores the callbacks to the best epoch.
    return {**measure_cost(components), "feature_cache": cached, "cache_seconds": cache_seconds}


def _prepare(cfg: DictConfig, components: RunComponents, resumed: bool) -> bool:
    """Cache features or images and warm up the head; return whether the run trains on cached features."""
    fine_tuning = components.classifier.fine_tuning
    if uses_features(cfg, components):
        serve_features(cfg, components)
        return True
    if not is_shortened(components.trainer):
        components.datamodule.open_images()
        if fine_tuning and fine_tuning.warm_up and not resumed:
            warm_up_head(components, cfg.loss.balance)
    return False


def _best_checkpoint(trainer: Trainer) -> str:
    checkpoint = trainer.checkpoint_callback
    if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_path:
        return checkpoint.best_model_path
    raise TrainingError(
        "No checkpoint was written, so there is none to test. Possible causes: trainer.fast_dev_run, no validation, or "
        "trainer.max_steps within the first epoch. Use trainer=smoke for a quick trial."
    )
