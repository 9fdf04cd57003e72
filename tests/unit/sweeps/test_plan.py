import re
from pathlib import Path

import pytest
from helpers.event_files import hparams_row
from helpers.setups import make_setup
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from pneumo.config.fingerprints import other_overrides
from pneumo.runs.result_rules import RESULT_NAMES
from pneumo.runs.results import Results
from pneumo.sweeps.plan import Job, job_name, make_columns, varied_keys
from pneumo.training.loggers import RunLogger


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"model": "resnext", "seed": "3"}, "base"),
        ({"optimizer.lr": "0.01"}, "base-lr0.01"),
        ({"optimizer.lr": "1e-05"}, "base-lr1e-05"),
        ({"augment": "light", "data.split": "patient"}, "base-light-split-patient"),
        ({"optimizer.lr": "0.1", "scheduler.lr": "0.2"}, "base-optimizer.lr0.1-scheduler.lr0.2"),
        ({"model.freeze": "false"}, "base-freeze-false"),
    ],
)
def test_a_name_contains_the_values_that_differ(values: dict[str, str], name: str) -> None:
    assert job_name("base", values, list(values)) == name


def test_a_name_omits_the_values_that_all_jobs_share() -> None:
    assert job_name("base", {"optimizer.lr": "0.1", "epochs": "3"}, ["optimizer.lr"]) == "base-lr0.1"


@given(st.text(min_size=1), st.text(min_size=1))
def test_names_are_safe_short_and_unique(one: str, other: str) -> None:
    first, second = (job_name("base", {"data.root": value}, ["data.root"]) for value in (one, other))
    assert re.fullmatch(r"[A-Za-z0-9.+_-]{1,64}", first)
    assert (first == second) == (one.strip("'\"") == other.strip("'\""))


def test_names_of_many_settings_fit_a_file_system() -> None:
    keys = [f"optimizer.setting{number}" for number in range(25)]
    first, second = (job_name("base", {**dict.fromkeys(keys, "0.1"), keys[-1]: last}, keys) for last in ("0.2", "0.3"))
    assert len(first) == len(second) == 255
    assert first != second


def job(*overrides: str) -> Job:
    dotted = [override.lstrip("+") for override in overrides if "." in override]
    config = OmegaConf.merge(OmegaConf.from_dotlist(dotted), {"augment": {"flip": 0.5}})
    assert isinstance(config, DictConfig)
    return Job("job", Path(), overrides, config)


def rows(*jobs: Job) -> list[dict[str, str | float]]:
    columns = make_columns(varied_keys([each.overrides for each in jobs]), jobs)
    return [columns.row(each) for each in jobs]


@pytest.mark.parametrize(
    ("key", "values", "shown"),
    [
        ("optimizer.momentum", ("0", "0.9"), (0.0, 0.9)),
        ("+trainer.gradient_clip_val", ("null", "1"), ("null", "1")),
        ("loss.balance", ("true", "false"), ("true", "false")),
        ("features.cache", ("auto", "true"), ("auto", "true")),
        ("augment", ("none", "light"), ("none", "light")),
        ("data.classes", ("[A,B]", "[B,A]"), ('["A", "B"]', '["B", "A"]')),
    ],
)
def test_values_of_one_column_have_one_type(key: str, values: tuple[str, ...], shown: tuple[str | float, ...]) -> None:
    actual = rows(*(job(f"{key}={value}", "data.split=official") for value in values))
    name = key.rpartition(".")[2].lstrip("+")
    assert actual == [{name: value} for value in shown]


def test_constant_settings_and_those_with_a_standard_column_have_no_extra_column() -> None:
    always = ("model=a", "optimizer=b", "seed=1", "optimizer.lr=0.1", "data.batch_size=4", "trainer.max_epochs=3")
    others = ("model=c", "optimizer=d", "seed=2", "optimizer.lr=0.2", "data.batch_size=8", "trainer.max_epochs=4")
    assert rows(job(*always, "optimizer.momentum=0.5"), job(*others, "optimizer.momentum=0.5")) == [{}, {}]


def test_columns_with_the_same_short_name_keep_their_full_keys() -> None:
    first, _ = rows(job("augment.share=0.5", "other.share=1"), job("augment.share=0.6", "other.share=2"))
    assert first == {"augment.share": 0.5, "other.share": 1.0}


def test_swept_settings_follow_rate_model_optimizer_and_seed_in_a_row(tmp_path: Path) -> None:
    results: Results = dict.fromkeys(RESULT_NAMES, 0.5)
    overrides = ["model=vgg16", "+trainer.gradient_clip_val=1", "data.root=/private", "launcher=ray"]
    overrides.append("~callbacks.progress")
    swept: dict[str, str | float] = {"momentum": 0.9, "augment": "light"}
    RunLogger(str(tmp_path)).log_results(results, make_setup(other_overrides(overrides), swept), 3)
    row = hparams_row(tmp_path)
    assert list(row)[:6] == ["lr", "model", "optimizer", "seed", "set/augment", "set/momentum"]
    assert (row["set/augment"], row["set/momentum"]) == ("light", 0.9)
    assert row["setup/overrides"] == "+trainer.gradient_clip_val=1"
