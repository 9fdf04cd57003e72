"""The components of a run: data module, classifier and trainer, built from its configuration."""

import logging
import warnings
from dataclasses import dataclass
from typing import Any, TypeVar

import hydra
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pneumo.common.hardware import Hardware, choose_hardware, choose_memory_format, require_compiler, set_up_process
from pneumo.config.checks import check_config, resolve
from pneumo.config.fingerprints import relevant_config, with_current_targets
from pneumo.config.relations import monitor_mode
from pneumo.config.resolvers import register_resolvers
from pneumo.config.signatures import locate, parameters
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.errors import ConfigError
from pneumo.models.backbones import trains_on_one_image
from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import PLATEAU, FineTuning, MakeOptimizer, MakeScheduler, TrainingOptions, class_weights
from pneumo.models.head_classifier import HeadClassifier
from pneumo.models.hyperparameters import PredictionOptions
from pneumo.training.callbacks import History, RecordConfig
from pneumo.training.checkpoints import CheckpointWriter
from pneumo.training.class_checks import check_targets, config_errors, require_instance, try_schedule
from pneumo.training.lung_training import load_locator

_HARMLESS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # between Lightning 2.6 and newer PyTorch
    "The number of training batches",  # fewer than log_every_n_steps: a short run; its epochs are still logged
    "Checkpoint directory .* exists and is not empty",  # a resumed run
    "The `srun` command is available",  # a Slurm machine used without Slurm
    "Found .* module.* in eval mode",  # intended for a frozen backbone
    "The '.*_dataloader' does not have many workers",  # data.num_workers is the user's choice
)
_MAX_TRIAL_STEPS = 100  # of a scheduler
_Kind = TypeVar("_Kind", bound=Callback)


@dataclass(frozen=True)
class RunComponents:
    """Data module, classifier and trainer of a run."""

    datamodule: ChestXrayDataModule
    classifier: Classifier
    trainer: Trainer

    @property
    def callbacks(self) -> list[Callback]:
        """Return all callbacks of the trainer."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined] # set by Lightning
        return callbacks

    def callback(self, kind: type[_Kind]) -> _Kind:
        """Return the trainer's first callback of a class."""
        return next(callback for callback in self.callbacks if isinstance(callback, kind))


def build(cfg: DictConfig) -> RunComponents:
    """Build the components of a configuration, with indexed data and an initialized network.

    The process is seeded first, since the seed determines the initial weights. Data are prepared here, not in
    Lightning's hooks: the number of outputs and the class weights depend on them, and checkpoints store their hash.

    Raises:
        PneumoError: The configuration, the data or the weights are invalid.
    """
    register_resolvers()  # for callers without a script; launchers register them in their own processes
    check_config(cfg)
    check_targets(cfg)
    hardware = choose_hardware(cfg.trainer.accelerator, str(cfg.trainer.precision), cfg.trainer.deterministic)
    if cfg.compile:
        require_compiler("compile=true", hardware.accelerator, "compile=false")
    set_up_process(hardware)
    silence_warnings()
    seed_everything(cfg.seed, verbose=False)

    optimizer, scheduler = _make_optimizer_and_scheduler(cfg, hardware.precision)
    with config_errors("trainer"):  # Lightning would ignore `max_time` next to a timer without a limit
        timer = Timer(resolve(cfg)["trainer"].get("max_time"))
    augment = _instantiate(cfg, "augment")
    datamodule: ChestXrayDataModule = _instantiate(cfg, "data", augmentation=augment, pin_memory=hardware.pin_memory)
    datamodule.prepare_data()
    datamodule.setup()
    classifier = _make_classifier(cfg, datamodule, optimizer, scheduler)
    depthwise = classifier.backbone.depthwise
    classifier.backbone.to(memory_format=choose_memory_format(hardware.accelerator, classifier.frozen, depthwise))
    constant = [f"backbone.{name}" for name in classifier.backbone.state_dict()] if classifier.frozen else []
    own = [timer, History(), RecordConfig(run_settings(cfg, datamodule))]
    trainer = _make_trainer(cfg, hardware, own, CheckpointWriter(constant))
    _avoid_single_images(datamodule, classifier, trainer)
    if cfg.compile:
        classifier.backbone.compile()
    return RunComponents(datamodule, classifier, trainer)


def silence_warnings() -> None:
    """Silence harmless warnings of Lightning and PyTorch; on ranks other than 0, log only errors."""
    if getattr(rank_zero_only, "rank", 0) != 0:
        logging.getLogger("pneumo").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # tips and repetitions of pneumo's log
    for message in _HARMLESS:
        warnings.filterwarnings("ignore", message=message)


def run_settings(cfg: DictConfig, datamodule: ChestXrayDataModule) -> dict[str, Any]:
    """Return the settings that must not change when a run is resumed."""
    return {**relevant_config(cfg), "data_hash": datamodule.data_hash}


def _make_optimizer_and_scheduler(cfg: DictConfig, precision: str) -> tuple[MakeOptimizer, MakeScheduler]:
    """Return both factories after a trial on a dummy parameter, so that errors are raised before any download."""
    # Lightning cannot clip gradients of a fused optimizer in mixed precision.
    unfused = "mixed" in precision and cfg.trainer.get("gradient_clip_val") and "fused" in cfg.optimizer
    optimizer: MakeOptimizer = _instantiate(cfg, "optimizer", **({"fused": None} if unfused else {}))
    scheduler: MakeScheduler = _instantiate(cfg, "scheduler")
    parameter = torch.nn.Parameter(torch.zeros(1, 1))
    parameter.grad = torch.zeros(1, 1)
    with config_errors("optimizer"):
        trial = optimizer(iter([parameter]))
        require_instance(trial, Optimizer)
        trial.step(lambda: 0.0)  # LBFGS requires a closure
    with config_errors("scheduler"):
        schedule = scheduler(trial)
        require_instance(schedule, LRScheduler)
        try_schedule(schedule, trial, min(cfg.trainer.max_epochs, _MAX_TRIAL_STEPS))
    if isinstance(schedule, ReduceLROnPlateau) and schedule.mode != monitor_mode(PLATEAU):
        raise ConfigError(f"scheduler.mode={schedule.mode} must be min, since the scheduler monitors {PLATEAU}.")
    return optimizer, scheduler


def _make_classifier(
    cfg: DictConfig, datamodule: ChestXrayDataModule, optimizer: MakeOptimizer, scheduler: MakeScheduler
) -> Classifier:
    model, loss = cfg.model, cfg.loss
    labels = [image.label for image in datamodule.splits["train"]]
    with config_errors("model"):
        classifier = (HeadClassifier if model.freeze else Classifier)(
            model.architecture,
            datamodule.classes,
            datamodule.input_format,
            model.freeze,
            model.head_path,
            PredictionOptions(model.threshold, flip_test=cfg.decision.flip),
            TrainingOptions(
                weights=model.weights,
                label_smoothing=loss.label_smoothing,
                class_weights=class_weights(labels, len(datamodule.classes)) if loss.balance else None,
                fine_tuning=FineTuning(**cfg.fine_tuning),
                optimizer=optimizer,
                scheduler=scheduler,
                batch_size=datamodule.batch_size,
            ),
            model.get("lung_crop"),  # configurations of earlier versions have none
        )
    if classifier.backbone.crop is not None:
        classifier.backbone.crop.locator = load_locator(datamodule.cache_dir)
    return classifier


def _make_trainer(cfg: DictConfig, hardware: Hardware, own: list[Callback], writer: CheckpointWriter) -> Trainer:
    """Build the trainer with pneumo's own callbacks and those of the configuration."""
    trainer: Trainer = _instantiate(
        cfg,
        "trainer",
        max_time=None,  # Lightning ignores it if there is a timer
        accelerator=hardware.accelerator,
        precision=hardware.precision,
        benchmark=hardware.benchmark,
        callbacks=[*own, *_instantiate(cfg, "callbacks", **_missing_modes(cfg)).values()],
        logger=list(_instantiate(cfg, "logger").values()),
        plugins=[writer],
    )
    return trainer


def _missing_modes(cfg: DictConfig) -> dict[str, dict[str, str]]:
    """Return the `mode` of each callback that monitors a metric but does not set its mode."""
    modes = {}
    for name, callback in cfg.callbacks.items():
        if not isinstance(callback, DictConfig) or callback.get("monitor") is None or "mode" in callback:
            continue
        if "mode" in parameters(locate(f"callbacks.{name}", callback._target_))[0]:
            modes[str(name)] = {"mode": monitor_mode(callback.monitor)}
    return modes


def _instantiate(cfg: DictConfig, key: str, **arguments: Any) -> Any:  # noqa: ANN401 (any `_target_`)
    """Instantiate `cfg[key]`."""
    with config_errors(key):
        return hydra.utils.instantiate(with_current_targets(cfg)[key], _convert_="all", **arguments)


def _avoid_single_images(datamodule: ChestXrayDataModule, classifier: Classifier, trainer: Trainer) -> None:
    """Avoid training batches of one image if the network's batch normalization requires more."""
    images = -(-len(datamodule.splits["train"]) // trainer.world_size)  # of each process
    largest = min(datamodule.batch_size, images)
    if classifier.frozen or (largest > 1 and images % datamodule.batch_size != 1):
        return
    if trains_on_one_image(classifier.backbone, classifier.input_format.size):
        return
    if largest == 1:
        raise ConfigError(
            f"data.batch_size={datamodule.batch_size} with {images} training images per process results in "
            "batches of one image, but the batch normalization of this network requires at least two. Set "
            "data.batch_size=2 or more, train on at least two images per process, or set model.freeze=true."
        )
    datamodule.merge_single_image()
