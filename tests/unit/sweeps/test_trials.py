import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna")
from omegaconf import DictConfig, OmegaConf  # noqa: E402
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

from pneumo.errors import ConfigError  # noqa: E402
from pneumo.sweeps.trials import (  # noqa: E402
    Space,
    Trials,
    open_trials,
)

SPACE = Space(
    {
        "optimizer.lr": FloatDistribution(1e-3, 1e-1, log=True),
        "data.batch_size": IntDistribution(8, 64),
        "augment": CategoricalDistribution(["none", "light"]),
    },
    ["model=resnext"],
)
IDENTITY = {"objective": "val_loss", "space": "one", "settings": "{}"}


def config(storage: str | None = None, objective: str = "val_loss") -> DictConfig:
    return OmegaConf.create(
        {"seed": 0, "sweep": {"name": "rates", "objective": objective, "storage": storage, "at_once": 1}}
    )


def opened(folder: Path, storage: str | None = None) -> Trials:
    return open_trials(config(storage), folder, SPACE, IDENTITY)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The database of a search with one finished and one interrupted trial."""
    folder = tmp_path_factory.mktemp("search")
    trials = opened(folder)
    for value in (0.5, None):
        (trial,) = trials.choose(1, 5)
        assert trial.params.keys() == SPACE.searched.keys()
        if value is not None:
            trials.record(trial.number, value)
    return (folder / "optuna.db").read_bytes()


def edited(folder: Path, database: bytes, *statements: str) -> Path:
    path = folder / "optuna.db"
    path.write_bytes(database)
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return path


RUNNING = "WHERE trial_id = (SELECT trial_id FROM trials WHERE state = 'RUNNING')"
DONE = "WHERE trial_id = (SELECT trial_id FROM trials WHERE state = 'COMPLETE')"


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        (
            f"UPDATE trial_params SET param_name = 'hydra.launcher' {RUNNING} AND param_name = 'augment'",
            "hydra.launcher",
        ),
        (f"UPDATE trial_params SET param_name = 'optimizer.lr=1,seed' {RUNNING} AND param_name = 'augment'", "seed"),
        (f"UPDATE trial_params SET param_name = 'hydra.launcher' {DONE} AND param_name = 'augment'", "hydra.launcher"),
        (
            "UPDATE trial_params SET distribution_json = replace(distribution_json, 'light', 'x,hydra.job=y') "
            f"{RUNNING} AND param_name = 'augment'",
            "hydra.job=y",
        ),
        (f"UPDATE trial_params SET param_value = 1e9 {RUNNING} AND param_name = 'optimizer.lr'", "optimizer.lr"),
        (f"UPDATE trial_params SET param_value = 7 {RUNNING} AND param_name = 'data.batch_size'", "data.batch_size=7"),
        (f"UPDATE trial_params SET param_value = 9 {RUNNING} AND param_name = 'augment'", "optuna.db"),
        (f"UPDATE trial_params SET param_value = NULL {RUNNING} AND param_name = 'optimizer.lr'", "optuna.db"),
        (f"UPDATE trial_params SET param_value = 'text' {RUNNING} AND param_name = 'optimizer.lr'", "optuna.db"),
        (f"UPDATE trial_params SET distribution_json = '[]' {RUNNING}", "optuna.db"),
        (f"UPDATE trial_params SET distribution_json = '{'[' * 100_000}' {RUNNING}", "optuna.db"),
        (f"DELETE FROM trial_params {DONE} AND param_name = 'augment'", "augment"),
        ("UPDATE trial_values SET value = 'text'", "text"),
        ("UPDATE trial_values SET value = 9e999", "inf"),
        ("UPDATE trial_values SET value = NULL", "optuna.db"),
        ("UPDATE trial_values SET objective = 99", "optuna.db"),
        ("DELETE FROM trial_values", "None"),
        ("UPDATE trials SET state = 'ODD'", "optuna.db"),
        ("UPDATE trials SET state = 'PRUNED'", "PRUNED"),
        ("UPDATE trials SET number = number + 3", "number 3"),
        ("UPDATE study_directions SET direction = 'MAXIMIZE'", "differs in: objective"),
        ("UPDATE study_user_attributes SET value_json = '{' WHERE key = 'space'", "optuna.db"),
        ("UPDATE study_user_attributes SET value_json = '[1]' WHERE key = 'space'", "differs in: space"),
        ("UPDATE alembic_version SET version_num = 'v99'", "another version"),
        ("DROP TABLE trial_params", "optuna.db"),
    ],
)
def test_an_edited_database_is_rejected(statement: str, word: str, database: bytes, tmp_path: Path) -> None:
    edited(tmp_path, database, statement)
    with pytest.raises(ConfigError) as error:
        opened(tmp_path).choose(1, 5)
    assert word in str(error.value)


@pytest.mark.parametrize("damage", [lambda old: b"no database", lambda old: old[:5000], lambda old: old[:100] * 50])
def test_an_invalid_database_file_is_named(damage: Callable[[bytes], bytes], database: bytes, tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_bytes(damage(database))
    with pytest.raises(ConfigError, match=r"optuna\.db cannot be used"):
        opened(tmp_path).choose(1, 5)


def test_a_database_that_is_damaged_during_a_search_is_named(database: bytes, tmp_path: Path) -> None:
    trials = opened(edited(tmp_path, database).parent)
    edited(tmp_path, database, "DROP TABLE trial_values")
    with pytest.raises(ConfigError, match=r"optuna\.db cannot be used"):
        trials.record(1, 0.5)


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nosuch://me") as error:
        opened(tmp_path, "nosuch://me:hunter2@host/x")
    assert "hunter2" not in str(error.value)


def test_an_interrupted_trial_keeps_its_values_and_missing_values_are_sampled(database: bytes, tmp_path: Path) -> None:
    trials = opened(edited(tmp_path, database).parent)
    stopped = trials.read()[1]
    (chosen,) = trials.choose(1, 5)
    assert (chosen.number, chosen.params) == (1, stopped.params)

    trials = opened(edited(tmp_path, database, f"DELETE FROM trial_params {RUNNING}").parent)
    (chosen,) = trials.choose(1, 5)
    assert (chosen.number, chosen.state) == (1, TrialState.RUNNING)
    assert chosen.params.keys() == SPACE.searched.keys()


def test_queued_values_outside_the_space_are_rejected(database: bytes, tmp_path: Path) -> None:
    trials = opened(edited(tmp_path, database).parent)
    trials.record(1, 0.4)
    trials.study.enqueue_trial({"optimizer.lr": 5.0})
    outside = pytest.raises(ConfigError, match=r"optimizer\.lr=5\.0, which is outside")
    with outside, pytest.warns(UserWarning, match="out of range"):
        trials.choose(1, 5)
    best = opened(edited(tmp_path, database).parent).best()
    assert best is not None
    assert best.number == 0
