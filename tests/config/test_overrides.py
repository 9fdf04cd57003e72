"""Mistyped and unusual overrides: each is rejected in one paragraph or accepted."""

import shlex
from pathlib import Path

import pytest
from helpers.commands import ROOT, Compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from pneumo.config.overrides import check_choices
from pneumo.errors import PneumoError
from pneumo.training.components import build

HERE = Path(__file__).parent
QUICK = ["scheduler.T_max=0", "callbacks.best.filename=last", "optimizer._target_=os.system", "seed=${x}", "model=null"]


def lines(name: str) -> list[list[str]]:
    return [shlex.split(line) for line in (HERE / f"{name}.txt").read_text().splitlines()]


def user_error(base: DictConfig, overrides: list[str], compose: Compose) -> str | None:
    """Return the user error that overrides cause; None if a run can be built."""
    try:
        check_choices(overrides, ROOT / "conf")
        parsed = OverridesParser.create().parse_overrides(overrides)
        if any((ROOT / "conf" / each.key_or_group).is_dir() for each in parsed):
            cfg = compose(*overrides)
        else:
            cfg = base.copy()
            ConfigLoaderImpl._apply_overrides_to_config(parsed, cfg)
        build(cfg)
    except (HydraException, PneumoError, SystemExit) as error:
        return str(error)
    return None


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


@pytest.mark.parametrize("override", QUICK)
def test_an_error_starts_with_the_key(override: str, compose_run: Compose) -> None:
    error = user_error(compose_run(), [override], compose_run)
    assert error is not None
    assert error.startswith(override.partition("=")[0])


@pytest.mark.slow
@pytest.mark.usefixtures("no_hub")
@pytest.mark.filterwarnings("default")
def test_each_override_is_rejected_in_one_paragraph_or_accepted(compose_run: Compose) -> None:
    base = compose_run()
    rejected, accepted = lines("rejected"), lines("accepted")
    assert len(rejected) + len(accepted) >= 300
    errors = {shlex.join(each): user_error(base, each, compose_run) for each in rejected}
    assert [each for each, error in errors.items() if error is None] == []
    assert {each: error for each, error in errors.items() if error and "Traceback" in error} == {}
    errors = {shlex.join(each): user_error(base, each, compose_run) for each in accepted}
    assert {each: error for each, error in errors.items() if error is not None} == {}
