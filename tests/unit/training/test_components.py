from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.commands import Compose
from lightning.pytorch.callbacks import Callback, Timer
from omegaconf import OmegaConf

from pneumo.common.disk import mistake_behind
from pneumo.config.fingerprints import config_hash
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.errors import ConfigError, PneumoError
from pneumo.training.class_checks import check_targets
from pneumo.training.components import _avoid_single_images, build
from pneumo.training.feature_cache import warm_up_head
from pneumo.training.metadata import measure_cost
from pneumo.training.run import run

SMALL = ("model=resnext", "model.architecture=torchvision/shufflenet_v2_x0_5", "model.weights=null")
SINGLE = ("data.batch_size=21", "trainer.max_epochs=1")  # one of the 64 training images is left over
CLIPPED = ("trainer.precision=bf16-mixed", "+trainer.gradient_clip_val=1")  # as on a GPU, where it is the default


def test_building_leaves_the_configuration_as_it_was_composed(compose_run: Compose) -> None:
    cfg = compose_run(*CLIPPED)
    before = OmegaConf.to_container(cfg, resolve=True)
    OmegaConf.set_readonly(cfg, True)
    parts = build(cfg)
    assert OmegaConf.to_container(cfg, resolve=True) == before
    optimizer = parts.classifier.make_optimizer
    assert optimizer is not None
    assert optimizer(parts.classifier.parameters()).defaults["fused"] is None  # Lightning could not clip it otherwise
    assert cfg.optimizer.fused is True


def test_a_run_keeps_its_configuration_from_being_changed(compose_run: Compose) -> None:
    cfg = compose_run("optimizer.lr=-1")
    with pytest.raises(ConfigError):
        run(cfg)
    assert OmegaConf.is_readonly(cfg)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("+trainer.max_epoch=3", "Did you mean trainer.max_epochs?"),
        ("+trainer.gradient_clip=1", "Did you mean +trainer.gradient_clip_val?"),
        ("+optimizer.momentun=0.5", "Did you mean optimizer.momentum?"),
        ("+model.architectures=a", "Did you mean model.architecture?"),
    ],
)
def test_unknown_key_error_suggests_the_key_that_was_meant(override: str, meant: str, compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"\w is not a setting") as raised:
        build(compose_run(override))
    assert meant in str(raised.value)


def test_a_clipped_run_in_mixed_precision_is_recognised_when_it_is_repeated(compose_run: Compose) -> None:
    small = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1")
    cfg = compose_run(*CLIPPED, *small)
    assert run(cfg)["config_hash"] == config_hash(compose_run(*CLIPPED, *small))


def test_a_left_over_image_joins_a_batch_where_the_network_could_not_be_trained_on_it(compose_run: Compose) -> None:
    parts = build(compose_run(*SMALL, "model.freeze=false", *SINGLE, "scheduler=one_cycle"))
    parts.trainer.fit(parts.classifier, datamodule=parts.datamodule)
    assert parts.trainer.global_step == parts.trainer.estimated_stepping_batches == 3
    cost = measure_cost(parts)
    assert cost["samples_per_second"] == pytest.approx(64 / float(cost["train_seconds"]))


@pytest.mark.parametrize("overrides", [SMALL, ("model=xraychestnet",)])  # a frozen one, and one with maps left
def test_a_left_over_image_stays_alone_where_the_network_can_be_trained_on_it(
    overrides: tuple[str, ...], compose_run: Compose
) -> None:
    datamodule = build(compose_run(*overrides, *SINGLE)).datamodule
    assert [len(batch["label"]) for batch in datamodule.train_dataloader()] == [21, 21, 21, 1]


def test_neither_warm_up_nor_training_has_a_batch_of_one_image(compose_run: Compose) -> None:
    parts = build(compose_run(*SMALL, "model.freeze=false", "data.batch_size=21"))
    before = parts.classifier.head.weight.detach().clone()
    warm_up_head(parts, balance=False)
    assert not parts.classifier.head.weight.equal(before)
    for size, processes in ((1, 1), (16, 64)):
        parts.datamodule.batch_size = size
        trainer: Any = SimpleNamespace(world_size=processes)
        with pytest.raises(ConfigError, match=rf"batch_size={size} with {64 // processes} training images"):
            _avoid_single_images(parts.datamodule, parts.classifier, trainer)


def test_a_time_limit_is_that_of_the_one_timer(compose_run: Compose) -> None:
    trainer = build(compose_run("+trainer.max_time={minutes:2}")).trainer
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined] # set by a connector
    (timer,) = (callback for callback in callbacks if isinstance(callback, Timer))  # Lightning wants one
    assert timer.time_remaining() == 120


@pytest.mark.slow
def test_a_run_whose_time_is_over_ends_after_its_first_epoch(compose_run: Compose) -> None:
    parts = build(compose_run("+trainer.max_time={seconds:0.001}", "trainer.max_epochs=1000"))
    parts.trainer.fit(parts.classifier, datamodule=parts.datamodule)
    assert parts.trainer.current_epoch == 1  # the first epoch is a whole one
    assert parts.trainer.callback_metrics["val/loss"].isfinite()


class OwnData(ChestXrayDataModule):
    def __init__(self, shades: int, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)


OWN_DATA = f"data._target_={__name__}.OwnData"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+data.shades=text", r"data\.shades=text must be a whole number"),
        ("+data.shadows=2", r"data\.shadows is not a setting.*Did you mean \+data\.shades"),
        ("data.batch_size=text", r"data\.batch_size=text must be a whole number from 1"),
        ("~data.task", r"data\.task is missing"),
    ],
)
def test_a_data_module_of_the_user_is_checked_by_its_signature(override: str, words: str, compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=words):
        build(compose_run(OWN_DATA, override))


def test_a_data_module_of_the_user_is_built(compose_run: Compose) -> None:
    assert isinstance(build(compose_run(OWN_DATA, "+data.shades=2")).datamodule, OwnData)


def unannotated(params, lr):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    return torch.optim.SGD(params, lr=lr)


def falling(epoch: int) -> float:
    return 0.9**epoch


def wrong(optimizer, **options):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN201
    return options


class AnyOptions(Callback):
    def __init__(self, **options: object) -> None:
        self.options = options


@pytest.mark.parametrize(
    "overrides",
    [
        (
            f"optimizer._target_={__name__}.unannotated",
            "~optimizer.fused",
            "~optimizer.momentum",
            "~optimizer.weight_decay",
        ),
        (
            "scheduler._target_=torch.optim.lr_scheduler.LambdaLR",
            "~scheduler.T_max",
            f"+scheduler.lr_lambda={{_target_:{__name__}.falling,_partial_:true}}",
        ),
        (f"+callbacks.x={{_target_:{__name__}.AnyOptions,anything:1}}",),
        ("+logger.x={_target_:lightning.pytorch.loggers.TensorBoardLogger,save_dir:x,filename_suffix:y}",),
    ],
)
def test_what_a_signature_leaves_open_is_allowed(overrides: tuple[str, ...], compose_run: Compose) -> None:
    check_targets(compose_run(*overrides))


def test_what_a_function_without_annotation_makes_is_checked(compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"`scheduler` cannot be built.*makes an object of dict"):
        build(compose_run(f"scheduler._target_={__name__}.wrong"))


@pytest.mark.parametrize(
    "override",
    [
        "optimizer._target_={}.spoil",
        "scheduler._target_={}.spoil",
        "data._target_={}.spoil",
        "callbacks.best._target_={}.spoil",
        "+callbacks.x._target_={}.spoil",
        "+trainer.profiler._target_={}.spoil",
        "+optimizer.defaults={{_target_:{}.spoil}}",
    ],
)
def test_a_target_of_another_kind_is_refused_before_it_is_called(override: str, compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"_target_=.*spoil must be|is not a setting"):
        build(compose_run(override.format(__name__)))
    assert SPOILT == []


SPOILT: list[str] = []


def spoil(*_: object, **options: object) -> None:
    SPOILT.append("called")


def test_an_error_of_a_schedule_in_its_steps_is_named_before_training(compose_run: Compose) -> None:
    rising = ["scheduler._target_=torch.optim.lr_scheduler.ExponentialLR", "~scheduler.T_max", "+scheduler.gamma=1e300"]
    with pytest.raises(ConfigError, match=r"`scheduler` cannot be built.*learning rate is inf"):
        build(compose_run(*rising))


class Refusing(Callback):
    def __init__(self) -> None:
        raise TypeError("not today")


def test_what_a_class_of_the_configuration_refuses_is_an_error_of_its_user(compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"`callbacks` cannot be built.*not today"):
        build(compose_run(f"+callbacks.x={{_target_:{__name__}.Refusing}}"))


@pytest.mark.parametrize("function", ["pneumo.data.datamodule.check_split", "pneumo.models.classifier.CatMetric"])
def test_an_error_within_pneumo_keeps_its_traceback(
    function: str, compose_run: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function, None)
    with pytest.raises(TypeError, match="not callable") as raised:
        build(compose_run())
    module = function.rpartition(".")[0]
    assert raised.traceback[-1].path == Path(str(import_module(module).__file__))
    assert mistake_behind(raised.value) is None


def test_errors_of_the_user_are_no_errors_of_values() -> None:
    assert not issubclass(PneumoError, ValueError)
