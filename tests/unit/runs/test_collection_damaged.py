"""Files of a finished run, changed in every way that damage or an editor may change them."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.run_files import write_failed_run, write_run

from pneumo.cli.commands import report
from pneumo.errors import ConfigError
from pneumo.reporting.comparison import compare
from pneumo.reporting.leaderboard_table import to_csv, to_markdown
from pneumo.reporting.rows import build_rows
from pneumo.runs.collection import collect
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.result_rules import RESULT_NAMES
from pneumo.runs.results import read_results
from pneumo.runs.status import Status, load_status, read_status, write_status
from pneumo.sweeps.job import Command, read_command, write_command

_ODD: list[object] = [None, True, [], {}, "", "NaN", -2, 1e308, -1e308, 10**400, "x" * 10_000, "\0", "\ud800"]
_ODD += ["a\nb", {"a": [[]]}]
_ODD_NUMBERS = (float("nan"), float("inf"), -float("inf"))
_CELLS = ("", "nan", "inf", "-1", "2", "1e999", "x", "NORMAL", "PNEUMONIA", "LUNG", '"', "\0", "9" * 200_000)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "sweep" / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=5, images=40)
    return tmp_path / "sweep" / "resnext-sgd-s0"


def board(run: Path) -> str:
    """Read a run in each way that commands do."""
    runs = collect([run.parent])
    read_predictions(run, read_results(run) or {})
    return to_csv(runs) + to_markdown(compare(build_rows(runs)).rows, [], "title")


def damage(content: bytes, chance: random.Random) -> Iterator[bytes]:
    """Give what damage makes of a file, whatever it holds."""
    yield content[: chance.randrange(len(content))]
    yield chance.randbytes(500)
    flipped = bytearray(content)
    for _ in range(chance.choice([1, 10])):
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
    yield bytes(flipped)
    yield content.decode().encode("utf-16")


def edited_results(content: bytes, chance: random.Random) -> Iterator[bytes]:
    results = json.loads(content)
    name = chance.choice(RESULT_NAMES)
    for value in (chance.choice(_ODD), chance.choice(_ODD_NUMBERS)):
        yield json.dumps({**results, name: value}).encode()
    yield json.dumps({key: value for key, value in results.items() if key != name}).encode()
    yield json.dumps({**results, "z": 0}).replace('"z": 0', f'"z": {"[" * 100_000}').encode()


def edited_predictions(content: bytes, chance: random.Random) -> Iterator[bytes]:
    lines = [line.split(",") for line in content.decode().splitlines()]
    row, cell = chance.randrange(1, len(lines)), chance.randrange(4)
    changed = [*lines[row][:cell], chance.choice(_CELLS), *lines[row][cell + 1 :]]
    for other in ([changed], [], [lines[row], lines[row]], [lines[row][:cell]]):
        yield "\n".join(",".join(line) for line in [*lines[:row], *other, *lines[row + 1 :]]).encode()


@pytest.mark.parametrize(("name", "edit"), [("results.json", edited_results), ("predictions.csv", edited_predictions)])
def test_a_damaged_file_is_refused_in_one_paragraph_or_does_no_harm(
    name: str, edit: Callable[[bytes, random.Random], Iterator[bytes]], run: Path
) -> None:
    content, chance, refused = (run / name).read_bytes(), random.Random(0), []
    for _ in range(10):
        for damaged in (*damage(content, chance), *edit(content, chance)):
            (run / name).write_bytes(damaged)
            try:
                board(run)
            except ConfigError as error:
                refused.append(str(error))
    named = [str(run / "predictions.csv"), str(run / name)]
    assert all("\n" not in message and any(path in message for path in named) for message in refused)
    assert 70 < len(refused) <= 80


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"test_accuracy": 1.5}, "test_accuracy=1.5 is not a number from 0 to 1"),
        ({"test_accuracy": 0.5}, "test_accuracy=0.5 does not follow"),
        ({"test_auroc": "0.9"}, "test_auroc='0.9'"),
        ({"test_mcc": -1.5}, "test_mcc=-1.5 is not a number from -1 to 1"),
        ({"epochs": 1.0}, r"epochs=1\.0 is not a whole number"),
        ({"seed": True}, "seed=True"),
        ({"collapsed": 0}, "collapsed=0 is not true or false"),
        ({"status": "finished"}, "status='finished' is not done or partial"),
        ({"model": "a\x1b[31m"}, "model="),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"parameters_trainable": 2}, "more trained parameters"),
    ],
)
def test_a_result_outside_of_its_contract_is_named(change: dict[str, object], reason: str, run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "of a later version": [1]}))
    board(run)
    (run / "results.json").write_text(json.dumps({**results, **change}))
    with pytest.raises(ConfigError, match=reason):
        board(run)


def test_a_result_file_that_is_denied_is_not_said_to_be_unwritable(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def deny(path: Path, *arguments: object, **options: object) -> object:
        if path.name == "results.json":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)  # type: ignore[call-overload] # as they came

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(ConfigError, match=r"results\.json is damaged.*Permission denied") as error:
        report([run.parent])
    assert "cannot be written" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"status": "done"}', "[" * 100_000, '{"seed": NaN}', "\0"])
def test_a_damaged_status_counts_as_missing_and_is_named(
    text: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_failed_run(run.parent / "vgg16-sgd-s0", "vgg16", "sgd")
    (run.parent / "vgg16-sgd-s0" / "status.json").write_text(text)
    assert read_status(run.parent / "vgg16-sgd-s0") is None
    assert [found.folder for found in collect([run.parent])] == [run]
    assert "1 status.json" in caplog.text
    assert "vgg16-sgd-s0" in caplog.text
    with pytest.raises(ConfigError, match=r"status\.json"):
        collect([run.parent / "vgg16-sgd-s0"])


def test_a_status_and_a_command_are_read_as_they_were_written(tmp_path: Path) -> None:
    status = Status("now", "done", "", "", "vgg16", "sgd", 3, "study", "hash")
    write_status(tmp_path, status)
    assert load_status(tmp_path) == status
    command = Command("now", overwrite=True, complete=False)
    write_command(tmp_path, command)
    assert read_command(tmp_path) == command
    for text in ('{"name": 1, "overwrite": true, "complete": false}', '{"name": "a", "overwrite": 1}', "[1]"):
        (tmp_path / ".command.json").write_text(text)
        assert read_command(tmp_path) is None
