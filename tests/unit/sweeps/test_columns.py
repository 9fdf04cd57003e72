from pathlib import Path

import pytest
from helpers.events import hparams_row
from omegaconf import OmegaConf

from pneumo.config.fingerprints import other_overrides
from pneumo.runs.results import RESULT_NAMES
from pneumo.sweeps.plan import Job, make_columns, varied_keys
from pneumo.training.loggers import RunLogger


def job(*overrides: str) -> Job:
    dotted = [override.lstrip("+") for override in overrides if "." in override]
    config = OmegaConf.merge(OmegaConf.from_dotlist(dotted), {"augment": {"flip": 0.5}})
    assert OmegaConf.is_dict(config)
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
    found = rows(*(job(f"{key}={value}", "data.split=official") for value in values))
    name = key.rpartition(".")[2].lstrip("+")
    assert found == [{name: value} for value in shown]


def test_what_has_a_column_anyway_or_does_not_differ_gets_none() -> None:
    always = ("model=a", "optimizer=b", "seed=1", "optimizer.lr=0.1", "data.batch_size=4", "trainer.max_epochs=3")
    others = ("model=c", "optimizer=d", "seed=2", "optimizer.lr=0.2", "data.batch_size=8", "trainer.max_epochs=4")
    assert rows(job(*always, "optimizer.momentum=0.5"), job(*others, "optimizer.momentum=0.5")) == [{}, {}]


def test_columns_of_one_name_keep_their_whole_keys() -> None:
    first, _ = rows(job("augment.share=0.5", "other.share=1"), job("augment.share=0.6", "other.share=2"))
    assert first == {"augment.share": 0.5, "other.share": 1.0}


def test_a_row_has_what_is_swept_right_after_model_optimizer_rate_and_seed(tmp_path: Path) -> None:
    results = dict.fromkeys(RESULT_NAMES, 0.5)
    given = ["model=vgg16", "+trainer.gradient_clip_val=1", "data.root=/private", "launcher=ray", "~callbacks.progress"]
    swept = {"momentum": 0.9, "augment": "light"}
    RunLogger(str(tmp_path)).log_results(results, 0.1, 3, other_overrides(given), swept)
    row = hparams_row(tmp_path)
    assert list(row)[:6] == ["lr", "model", "optimizer", "seed", "set/augment", "set/momentum"]
    assert (row["set/augment"], row["set/momentum"]) == ("light", 0.9)
    assert row["setup/overrides"] == "+trainer.gradient_clip_val=1"
