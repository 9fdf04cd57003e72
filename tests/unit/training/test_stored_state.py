import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.configurations import run_composer

from pneumo.models.checkpoint_reader import hash_checkpoint, read_checkpoint
from pneumo.training.components import RunComponents, build, run_settings
from pneumo.training.resumption import check_resumable
from pneumo.training.run import run
from pneumo.training.state_schema import StateError
from pneumo.training.stored_state import require_training_state

Content = dict[str, Any]
BEST = "RunCheckpoint{'monitor': 'val/loss', 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, "
BEST += "'train_time_interval': None}, best"


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Iterator[RunComponents]:
    """Components of the run `finished`."""
    with run_composer(tmp_path_factory.mktemp("components"), phantoms) as compose:
        yield build(compose("optimizer=adam", "trainer.max_epochs=2", "figures=true"))


@pytest.fixture(scope="module")
def state(finished: Path) -> tuple[Content, Content]:
    last, best = (read_checkpoint(finished / "checkpoints" / f"{name}.ckpt") for name in ("last", "best"))
    return last, best


def with_value(node: Any, path: str, value: object) -> Any:  # noqa: ANN401 (any content of a checkpoint)
    """Copy nested dictionaries and lists with one value replaced, or deleted by `...`; `|` separates keys."""
    first, _, rest = path.partition("|")
    key: Any = BEST if first == "BEST" else int(first) if first.isdigit() else first
    changed = list(node) if isinstance(node, list) else dict(node)
    if not rest and value is ...:
        del changed[key]
    else:
        changed[key] = with_value(changed[key], rest, value) if rest else value
    return changed


PROGRESS = "loops|fit_loop|epoch_progress"
GROUP = "optimizer_states|0|param_groups|0"


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("epoch", (..., None, "1", 1.0, True, -1, 0, 5, 10**30, math.nan)),
        ("global_step", (..., 0, "8", 10**12)),
        ("pytorch-lightning_version", (..., None, "text", "1.0.0", 2)),
        ("loops", (..., None, [], {})),
        ("loops|fit_loop", (..., {}, 5)),
        (PROGRESS, (..., {}, {"total": {}, "current": {}})),
        (f"{PROGRESS}|current|processed", (..., 0, 3, -2, "2", 10**15)),
        (f"{PROGRESS}|total|reset", (5,)),
        (f"{PROGRESS}|total|ready", (torch.zeros(3), 1.0, True)),
        ("loops|fit_loop|epoch_loop.batch_progress|total|ready", (..., 3, "8")),
        ("loops|fit_loop|epoch_loop.batch_progress|is_last_batch", (..., False, 5)),
        ("loops|fit_loop|epoch_loop.scheduler_progress|total|completed", (..., 1, 5)),
        ("callbacks", (..., None, [])),
        ("callbacks|History", (..., {}, {"epochs": 5}, {"epochs": [{}, {}]})),
        ("callbacks|History|epochs|1|val/loss", (..., math.nan, math.inf, "text")),
        ("callbacks|History|epochs|1|epoch", (1, None)),
        ("callbacks|Timer|time_elapsed", (..., {}, 5)),
        ("callbacks|Timer|time_elapsed|train", (..., -1.0, math.inf, "5", 1e30)),
        ("callbacks|BEST", (..., None, {})),
        ("callbacks|BEST|dirpath", (..., None, "/etc", 5)),
        ("callbacks|BEST|best_model_path", (..., "", "/etc/best.ckpt", 5, [], "best.ckpt")),
        ("callbacks|BEST|kth_best_model_path", ("/etc/best.ckpt",)),
        ("callbacks|BEST|best_model_score", (..., None, torch.tensor(-9.0), torch.zeros(3), torch.tensor(math.nan), 1)),
        ("callbacks|BEST|best_k_models", (..., {}, {"/etc/passwd": torch.tensor(0.0)}, {5: torch.tensor(0.0)}, [])),
        ("callbacks|BEST|kth_value", (torch.tensor(-9.0), None, "text")),
        ("optimizer_states", (..., [], {}, [{}, {}])),
        ("optimizer_states|0|state", (..., {}, {0: {}}, [])),
        ("optimizer_states|0|state|0|exp_avg", (..., None, torch.zeros(3), "text", 5)),
        ("optimizer_states|0|state|0|step", (torch.tensor(1e9), torch.tensor(math.nan), "text")),
        ("optimizer_states|0|param_groups", (..., [], [{}], 5)),
        (f"{GROUP}|lr", (..., 5.0, math.nan, "text", None)),
        (f"{GROUP}|betas", (..., (0.1, 0.1), 5)),
        (f"{GROUP}|params", (..., [], [5, 6])),
        (f"{GROUP}|capturable", (True, "text")),
        (f"{GROUP}|other", (5,)),
        ("lr_schedulers", (..., [], None, [{}, {}])),
        ("lr_schedulers|0", (None, {}, 5)),
        ("lr_schedulers|0|last_epoch", (..., 0, 99, "text", math.nan)),
        ("lr_schedulers|0|T_max", (99, None, 0)),
        ("lr_schedulers|0|step", (5,)),
        ("lr_schedulers|0|base_lrs", ([], [5.0], None)),
        ("state_dict", (..., {}, None, [])),
        ("state_dict|head.bias", (..., None, torch.zeros(3), torch.full((2,), math.nan), torch.zeros(2).to_sparse())),
        ("state_dict|other", (torch.zeros(2),)),
        ("ChestXrayDataModule", (..., None, {}, {"epoch": 1}, {"epoch": "2"})),
        ("native_amp_scaling_state", ({},)),
        ("outliers", ({"x": 5},)),
        ("adaptation", ({"x": 5},)),
    ],
)
def test_an_altered_training_state_raises_an_error(
    path: str, values: tuple[object, ...], components: RunComponents, state: tuple[Content, Content]
) -> None:
    last, best = state
    for value in values:
        with pytest.raises(StateError) as error:
            require_training_state(with_value(last, path, value), best, components)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("epoch", (..., None, 99)),
        ("state_dict|head.bias", (..., torch.zeros(3))),
        ("metrics|val/loss", (..., math.nan)),
        ("hyper_parameters|image_size", (..., 64)),
        ("hyper_parameters|classes", (["A", "B"],)),
        ("validation", (..., None, [], {}, {"index": torch.arange(16), "logits": torch.zeros(16)})),
        ("validation|index", (torch.zeros(16, dtype=torch.long), torch.arange(16) + 1, torch.zeros(16))),
        ("validation|logits", (torch.zeros(16, 3), torch.full((16, 2), math.nan))),
    ],
)
def test_an_altered_best_checkpoint_raises_an_error(
    path: str, values: tuple[object, ...], components: RunComponents, state: tuple[Content, Content]
) -> None:
    last, best = state
    for value in values:
        with pytest.raises(StateError, match=r"^best\.ckpt: "):
            require_training_state(last, with_value(best, path, value), components)


@pytest.mark.slow
def test_a_run_with_an_epoch_cut_short_is_resumable(tmp_path: Path, phantoms: Path) -> None:
    options = ("trainer.max_epochs=2", "+trainer.max_steps=6")
    with run_composer(tmp_path, phantoms) as compose:
        cfg = compose(*options)
        run(cfg)
        folder, components = tmp_path / "run" / "checkpoints", build(cfg)
        check_resumable(folder / "last.ckpt", folder, run_settings(cfg, components.datamodule), components)


def test_the_state_of_a_run_is_valid(components: RunComponents, state: tuple[Content, Content]) -> None:
    before = [hash_checkpoint(content) for content in state]
    require_training_state(*state, components)
    assert [hash_checkpoint(content) for content in state] == before  # unchanged by the check
