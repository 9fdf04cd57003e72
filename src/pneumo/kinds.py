"""The kinds of classes that a configuration names, group by group."""

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pneumo.config import class_nodes, resolve
from pneumo.data.augmentation import Augmentation
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.models.fine_tuning import OneCycle
from pneumo.signatures import Kind, check_target

_KINDS = {
    "data": Kind((ChestXrayDataModule,), given=("augmentation", "pin_memory")),
    "augment": Kind((Augmentation,)),
    "optimizer": Kind((Optimizer,), deferred=(Optimizer,), first="params"),
    "scheduler": Kind((LRScheduler, OneCycle), deferred=(LRScheduler,), first="optimizer"),
    "trainer": Kind((Trainer,)),
    "callbacks": Kind((Callback,)),
    "logger": Kind((Logger,)),
}


def check_targets(cfg: DictConfig) -> None:
    """Check the classes that the configuration names, and their arguments, before any is called."""
    settings = resolve(cfg)
    for key, node in class_nodes(settings).items():
        check_target(key, node, _KINDS[key.partition(".")[0]], settings)
