"""One run: build, fit, test once, write what came out."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from hydra.errors import InstantiationException
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from omegaconf import DictConfig, OmegaConf

from pneumo import record
from pneumo.callbacks import RecordConfig
from pneumo.checkpoints import CheckpointWriter, check_resumable, resumable_checkpoint
from pneumo.config import check_config, config_hash, decisive_config
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.errors import ConfigError, PneumoError, TrainingError
from pneumo.evaluation.figures import write_test_figures
from pneumo.evaluation.results import Results, check_overwrite, report, write_results
from pneumo.features import FeatureOptions, is_shortened, serve_features, uses_features
from pneumo.hardware import Hardware, choose_hardware, require_compiler, set_up_process
from pneumo.models.classifier import Classifier, MakeOptimizer, MakeScheduler
from pneumo.quiet import quieten
from pneumo.stops import GO_ON, explained_stops
from pneumo.tensorboard import RunLogger

_log = logging.getLogger(__name__)


class Parts(NamedTuple):
    """What a run is made of."""

    datamodule: ChestXrayDataModule
    classifier: Classifier
    trainer: Trainer


def run(
    cfg: DictConfig,
    overwrite: bool = False,
    resume: bool = False,
    begun: Callable[[], None] = lambda: None,
    go_on: str = GO_ON,
) -> Results:
    """Train, test with the checkpoint that validation chose, and write the run's files.

    Args:
        cfg: Composed from conf/train.yaml.
        overwrite: Put this run in the place of another one that has finished in its folder.
        resume: Go on from the last checkpoint in the run's folder, if there is one that this run can go on from.
        begun: Called when all is built, and what an earlier run has left in the folder is gone.
        go_on: What a user whose signal stopped the run is told to do.

    Returns:
        What results.json holds.

    Raises:
        PneumoError: A user's mistake.
    """
    started = time.perf_counter()
    parts = build(cfg)
    datamodule, classifier, trainer = parts
    with _refusals("features"):
        features = FeatureOptions(**cfg.features)
    folder = Path(cfg.paths.run_dir)
    _take(folder, cfg, parts, overwrite, resume)
    begun()
    loggers = [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
    for logger in loggers:
        logger.log_config(OmegaConf.to_yaml(cfg, resolve=True))
    _log.info("running on %s in %s, writing to %s", trainer.strategy.root_device, trainer.precision, folder)

    with explained_stops(folder / "checkpoints" / "last.ckpt", go_on):
        cached, cache_seconds = _fill_caches(features, datamodule, classifier, trainer)
        trainer.fit(classifier, datamodule=datamodule, ckpt_path=cfg.ckpt_path)
        cost = record.measure_cost(trainer, datamodule)  # before the test, which sets callbacks back to the best epoch
        best = _best_checkpoint(trainer)
        trainer.test(classifier, datamodule=datamodule, ckpt_path=best, verbose=False)
    if not trainer.is_global_zero:
        return {}

    cost |= {"feature_cache": cached, "cache_seconds": cache_seconds, "total_seconds": time.perf_counter() - started}
    results = {**_record(cfg, parts, folder, best), **cost}
    _write(folder, results, loggers, cfg.optimizer.lr, trainer.current_epoch)
    report(folder, results)
    return results


def _take(folder: Path, cfg: DictConfig, parts: Parts, overwrite: bool, resume: bool) -> None:
    """Make a folder this run's: find the checkpoint to go on from, or remove what is there."""
    settings = _settings(cfg, parts.datamodule)
    if overwrite:
        cfg.ckpt_path = None
    elif resume:
        cfg.ckpt_path = resumable_checkpoint(folder / "checkpoints" / "last.ckpt", settings)
    elif cfg.ckpt_path is not None:
        check_resumable(Path(cfg.ckpt_path), folder / "checkpoints", settings)
    if not overwrite:
        check_overwrite(folder, config_hash(cfg), parts.datamodule.data_hash)
    if cfg.ckpt_path is None and parts.trainer.is_global_zero:
        _clear(folder)


def _write(folder: Path, results: Results, loggers: Sequence[RunLogger], lr: float, epochs: int) -> None:
    """Write figures, TensorBoard's last lines and, when all else is there, results.json."""
    figures = write_test_figures(folder, results)
    for logger in loggers:
        logger.log_images(figures, epochs)
        logger.log_results(results, lr, epochs)
    write_results(folder / "results.json", results)


def _record(cfg: DictConfig, parts: Parts, folder: Path, best: str) -> Results:
    return {
        **record.describe(cfg, *parts),
        **record.measure_quality(parts.trainer, best),
        **record.write_test_predictions(folder / "predictions.csv", cfg.model.threshold, *parts[:2]),
    }


def build(cfg: DictConfig) -> Parts:
    """Build what a configuration describes, its data indexed and its network initialised.

    Raises:
        PneumoError: A user's mistake.
    """
    check_config(cfg)
    hardware = _choose_hardware(cfg)
    set_up_process(hardware)
    quieten()
    seed_everything(cfg.seed, verbose=False)

    if "mixed" in hardware.precision and cfg.trainer.get("gradient_clip_val") and "fused" in cfg.optimizer:
        cfg.optimizer.fused = None  # Lightning cannot clip behind a fused optimizer in mixed precision
    optimizer, scheduler = _make_optimizer_and_scheduler(cfg)
    augmentation = _instantiate(cfg, "augment")
    datamodule: ChestXrayDataModule = _instantiate(
        cfg, "data", augmentation=augmentation, pin_memory=hardware.pin_memory
    )
    datamodule.prepare_data()
    datamodule.setup()
    with _refusals("model"):
        classifier = Classifier(
            **cfg.model,
            classes=datamodule.classes,
            image_size=datamodule.image_size,
            optimizer=optimizer,
            scheduler=scheduler,
        )
    classifier.backbone.to(memory_format=hardware.memory_format)
    if cfg.compile:
        classifier.backbone.compile()
    constant = [f"backbone.{name}" for name in classifier.backbone.state_dict()] if classifier.frozen else []
    trainer: Trainer = _instantiate(
        cfg,
        "trainer",
        accelerator=hardware.accelerator,
        precision=hardware.precision,
        benchmark=hardware.benchmark,
        callbacks=[Timer(), RecordConfig(_settings(cfg, datamodule)), *_instantiate(cfg, "callbacks").values()],
        logger=list(_instantiate(cfg, "logger").values()),
        plugins=[CheckpointWriter(constant)],
    )
    return Parts(datamodule, classifier, trainer)


def _choose_hardware(cfg: DictConfig) -> Hardware:
    trainer = cfg.trainer
    hardware = choose_hardware(trainer.accelerator, str(trainer.precision), trainer.deterministic, cfg.model.freeze)
    if cfg.compile:
        require_compiler("compile=true", hardware.accelerator, "compile=false")
    return hardware


def _fill_caches(
    options: FeatureOptions, datamodule: ChestXrayDataModule, classifier: Classifier, trainer: Trainer
) -> tuple[bool, float]:
    """Do what all epochs would repeat, unless an earlier run has done it.

    Returns:
        Whether the run trains on cached features, and the seconds that it took to have them, or the decoded images.
    """
    started = time.perf_counter()
    cached = uses_features(options, classifier, trainer)
    if cached:
        serve_features(options, datamodule, classifier, trainer)
    elif not is_shortened(trainer):
        datamodule.open_images()
    return cached, time.perf_counter() - started


def _make_optimizer_and_scheduler(cfg: DictConfig) -> tuple[MakeOptimizer, MakeScheduler]:
    """Give what makes them, tried on a parameter of no network: a mistake shows before anything is downloaded."""
    optimizer: MakeOptimizer = _instantiate(cfg, "optimizer")
    scheduler: MakeScheduler = _instantiate(cfg, "scheduler")
    with _refusals("optimizer"):
        trial = optimizer(iter([torch.nn.Parameter(torch.zeros(1, 1))]))
    with _refusals("scheduler"):
        scheduler(trial)
    return optimizer, scheduler


def _instantiate(cfg: DictConfig, key: str, **arguments: Any) -> Any:  # noqa: ANN401 (whatever the configuration names)
    """Instantiate what cfg[key] describes."""
    with _refusals(key):
        return hydra.utils.instantiate(cfg[key], _convert_="all", **arguments)


@contextmanager
def _refusals(key: str) -> Iterator[None]:
    """Let what a constructor refuses be the mistake of the user who configured it."""
    try:
        yield
    except (InstantiationException, TypeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        if isinstance(cause, PneumoError):
            raise cause from None
        reason = " ".join(str(cause).split())
        raise ConfigError(
            f"`{key}` cannot be built from its configuration: {reason}. See its values with "
            f"`--cfg job --package {key}`, and what they may be in the documentation of its _target_."
        ) from error


def _settings(cfg: DictConfig, datamodule: ChestXrayDataModule) -> dict[str, Any]:
    """Give what a run must share with the part of it that went before."""
    return {**decisive_config(cfg), "data_hash": datamodule.data_hash}


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
    stale = [folder / "results.json", folder / "predictions.csv", *folder.glob("events.out.tfevents.*")]
    stale += (folder / "checkpoints").glob("*.ckpt")
    for path in stale:
        path.unlink(missing_ok=True)
