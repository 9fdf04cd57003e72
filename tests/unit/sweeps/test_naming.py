import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.sweeps.plan import job_name


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
def test_what_differs_gets_into_the_name(values: dict[str, str], name: str) -> None:
    assert job_name("base", values, list(values)) == name


def test_what_all_jobs_share_stays_out_of_it() -> None:
    assert job_name("base", {"optimizer.lr": "0.1", "epochs": "3"}, ["optimizer.lr"]) == "base-lr0.1"


@given(st.text(min_size=1), st.text(min_size=1))
def test_names_are_safe_short_and_their_own(one: str, other: str) -> None:
    first, second = (job_name("base", {"data.root": value}, ["data.root"]) for value in (one, other))
    assert re.fullmatch(r"[A-Za-z0-9.+_-]{1,64}", first)
    assert (first == second) == (one.strip("'\"") == other.strip("'\""))


def test_names_of_many_settings_fit_a_file_system() -> None:
    keys = [f"optimizer.setting{number}" for number in range(25)]
    first, second = (job_name("base", {**dict.fromkeys(keys, "0.1"), keys[-1]: last}, keys) for last in ("0.2", "0.3"))
    assert len(first) == len(second) == 255
    assert first != second
