from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.commands import Compose
from lightning.pytorch.callbacks import Callback, Timer
from omegaconf import OmegaConf

from pneumo.common.disk import find_user_error
from pneumo.config.fingerprints import config_hash
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.errors import ConfigError, PneumoError
from pneumo.training.class_checks import check_targets
from pneumo.training.components import _avoid_single_images, build
from pneumo.training.feature_cache import warm_up_head
from pneumo.training.metadata import measure_cost
from pneumo.training.run import run

SMALL = ("model=resnext", "model.architecture=torchvision/shufflenet_v2_x0_5", "model.weights=null")
SINGLE = ("data.batch_size=21", "trainer.max_epochs=1")  # leaves a batch with one of the 64 training images
CLIPPED = ("trainer.precision=bf16-mixed", "+trainer.gradient_clip_val=1")  # as by default on a GPU


def test_build_does_not_change_the_configuration(compose_run: Compose) -> None:
    cfg = compose_run(*CLIPPED)
    before = OmegaConf.to_container(cfg, resolve=True)
    OmegaConf.set_readonly(cfg, True)
    components = build(cfg)
    assert OmegaConf.to_container(cfg, resolve=True) == before
    optimizer = components.classifier.make_optimizer
    assert optimizer is not None
    # Lightning cannot clip gradients of a fused optimizer in mixed precision.
    assert optimizer(components.classifier.parameters()).defaults["fused"] is None
    assert cfg.optimizer.fused is True


def test_run_makes_its_configuration_read_only(compose_run: Compose) -> None:
    cfg = compose_run("optimizer.lr=-1")
    with pytest.raises(ConfigError):
        run(cfg)
    assert OmegaConf.is_readonly(cfg)


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("+trainer.max_epoch=3", "Did you mean trainer.max_epochs?"),
        ("+trainer.gradient_clip=1", "Did you mean +trainer.gradient_clip_val?"),
        ("+optimizer.momentun=0.5", "Did you mean optimizer.momentum?"),
        ("+model.architectures=a", "Did you mean model.architecture?"),
    ],
)
def test_the_error_for_an_unknown_key_suggests_a_similar_key(
    override: str, suggestion: str, compose_run: Compose
) -> None:
    with pytest.raises(ConfigError, match=r"\w is not a setting") as raised:
        build(compose_run(override))
    assert suggestion in str(raised.value)


def test_the_config_hash_of_a_clipped_run_in_mixed_precision_is_reproducible(compose_run: Compose) -> None:
    small = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1")
    cfg = compose_run(*CLIPPED, *small)
    assert run(cfg)["config_hash"] == config_hash(compose_run(*CLIPPED, *small))


def test_a_single_image_joins_a_batch_if_the_network_cannot_train_on_it(compose_run: Compose) -> None:
    components = build(compose_run(*SMALL, "model.freeze=false", *SINGLE, "scheduler=one_cycle"))
    components.trainer.fit(components.classifier, datamodule=components.datamodule)
    assert components.trainer.global_step == components.trainer.estimated_stepping_batches == 3
    cost = measure_cost(components)
    assert cost["samples_per_second"] == pytest.approx(64 / float(cost["train_seconds"]))


# A frozen network, and one with a feature map larger than 1 x 1.
@pytest.mark.parametrize("overrides", [SMALL, ("model=xraychestnet",)])
def test_a_single_image_stays_a_batch_if_the_network_can_train_on_it(
    overrides: tuple[str, ...], compose_run: Compose
) -> None:
    datamodule = build(compose_run(*overrides, *SINGLE)).datamodule
    assert [len(batch["label"]) for batch in datamodule.train_dataloader()] == [21, 21, 21, 1]


def test_warm_up_and_training_avoid_batches_of_one_image(compose_run: Compose) -> None:
    components = build(compose_run(*SMALL, "model.freeze=false", "data.batch_size=21"))
    before = components.classifier.head.weight.detach().clone()
    warm_up_head(components, balance=False)
    assert not components.classifier.head.weight.equal(before)
    for size, processes in ((1, 1), (16, 64)):
        components.datamodule.batch_size = size
        trainer: Any = SimpleNamespace(world_size=processes)
        with pytest.raises(ConfigError, match=rf"batch_size={size} with {64 // processes} training images"):
            _avoid_single_images(components.datamodule, components.classifier, trainer)


def test_max_time_sets_the_limit_of_the_only_timer(compose_run: Compose) -> None:
    trainer = build(compose_run("+trainer.max_time={minutes:2}")).trainer
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined] # set by Lightning
    (timer,) = (callback for callback in callbacks if isinstance(callback, Timer))  # Lightning requires exactly one
    assert timer.time_remaining() == 120


@pytest.mark.slow
def test_max_time_stops_a_run_after_its_first_epoch(compose_run: Compose) -> None:
    components = build(compose_run("+trainer.max_time={seconds:0.001}", "trainer.max_epochs=1000"))
    components.trainer.fit(components.classifier, datamodule=components.datamodule)
    assert components.trainer.current_epoch == 1  # the first epoch is complete
    assert components.trainer.callback_metrics["val/loss"].isfinite()


class CustomData(ChestXrayDataModule):
    def __init__(self, shades: int, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)


CUSTOM_DATA = f"data._target_={__name__}.CustomData"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+data.shades=text", r"data\.shades=text must be a whole number"),
        ("+data.shadows=2", r"data\.shadows is not a setting.*Did you mean \+data\.shades"),
        ("data.batch_size=text", r"data\.batch_size=text must be a whole number from 1"),
        ("~data.task", r"data\.task is missing"),
    ],
)
def test_a_custom_data_module_is_checked_by_its_signature(override: str, message: str, compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=message):
        build(compose_run(CUSTOM_DATA, override))


def test_a_custom_data_module_is_built(compose_run: Compose) -> None:
    assert isinstance(build(compose_run(CUSTOM_DATA, "+data.shades=2")).datamodule, CustomData)


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
def test_open_signatures_accept_any_argument(overrides: tuple[str, ...], compose_run: Compose) -> None:
    check_targets(compose_run(*overrides))


def test_the_return_type_of_an_unannotated_function_is_checked(compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"`scheduler` cannot be built.*it returns a dict"):
        build(compose_run(f"scheduler._target_={__name__}.wrong"))


@pytest.mark.parametrize(
    "override",
    [
        "optimizer._target_={}.record_call",
        "scheduler._target_={}.record_call",
        "data._target_={}.record_call",
        "callbacks.best._target_={}.record_call",
        "+callbacks.x._target_={}.record_call",
        "+trainer.profiler._target_={}.record_call",
        "+optimizer.defaults={{_target_:{}.record_call}}",
    ],
)
def test_a_target_of_another_type_is_rejected_before_it_is_called(override: str, compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"_target_=.*record_call must be|is not a setting"):
        build(compose_run(override.format(__name__)))
    assert CALLS == []


CALLS: list[str] = []


def record_call(*_: object, **options: object) -> None:
    CALLS.append("called")


def test_an_invalid_learning_rate_of_a_later_step_is_detected_before_training(compose_run: Compose) -> None:
    rising = ["scheduler._target_=torch.optim.lr_scheduler.ExponentialLR", "~scheduler.T_max", "+scheduler.gamma=1e300"]
    with pytest.raises(ConfigError, match=r"`scheduler` cannot be built.*learning rate is inf"):
        build(compose_run(*rising))


class Raising(Callback):
    def __init__(self) -> None:
        raise TypeError("not today")


def test_a_constructor_error_of_a_configured_class_is_a_config_error(compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"`callbacks` cannot be built.*not today"):
        build(compose_run(f"+callbacks.x={{_target_:{__name__}.Raising}}"))


@pytest.mark.parametrize("function", ["pneumo.data.datamodule.check_split", "pneumo.models.classifier.CatMetric"])
def test_an_error_within_pneumo_keeps_its_traceback(
    function: str, compose_run: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function, None)
    with pytest.raises(TypeError, match="not callable") as raised:
        build(compose_run())
    module = function.rpartition(".")[0]
    assert raised.traceback[-1].path == Path(str(import_module(module).__file__))
    assert find_user_error(raised.value) is None


def test_pneumo_errors_are_not_value_errors() -> None:
    assert not issubclass(PneumoError, ValueError)
