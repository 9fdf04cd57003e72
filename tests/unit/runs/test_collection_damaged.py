"""Damaged and edited files of a finished run."""

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


def read_all(run: Path) -> str:
    """Read a run in every way that commands do."""
    runs = collect([run.parent])
    read_predictions(run, read_results(run) or {})
    return to_csv(runs) + to_markdown(compare(build_rows(runs)).rows, [], "title")


def damage(content: bytes, rng: random.Random) -> Iterator[bytes]:
    """Yield damaged versions of a file."""
    yield content[: rng.randrange(len(content))]
    yield rng.randbytes(500)
    flipped = bytearray(content)
    for _ in range(rng.choice([1, 10])):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    yield bytes(flipped)
    yield content.decode().encode("utf-16")


def edited_results(content: bytes, rng: random.Random) -> Iterator[bytes]:
    results = json.loads(content)
    name = rng.choice(RESULT_NAMES)
    for value in (rng.choice(_ODD), rng.choice(_ODD_NUMBERS)):
        yield json.dumps({**results, name: value}).encode()
    yield json.dumps({key: value for key, value in results.items() if key != name}).encode()
    yield json.dumps({**results, "z": 0}).replace('"z": 0', f'"z": {"[" * 100_000}').encode()


def edited_predictions(content: bytes, rng: random.Random) -> Iterator[bytes]:
    lines = [line.split(",") for line in content.decode().splitlines()]
    row, cell = rng.randrange(1, len(lines)), rng.randrange(4)
    changed = [*lines[row][:cell], rng.choice(_CELLS), *lines[row][cell + 1 :]]
    for other in ([changed], [], [lines[row], lines[row]], [lines[row][:cell]]):
        yield "\n".join(",".join(line) for line in [*lines[:row], *other, *lines[row + 1 :]]).encode()


@pytest.mark.parametrize(("name", "edit"), [("results.json", edited_results), ("predictions.csv", edited_predictions)])
def test_a_damaged_file_raises_a_one_paragraph_error_or_is_harmless(
    name: str, edit: Callable[[bytes, random.Random], Iterator[bytes]], run: Path
) -> None:
    content, rng, messages = (run / name).read_bytes(), random.Random(0), []
    for _ in range(10):
        for damaged in (*damage(content, rng), *edit(content, rng)):
            (run / name).write_bytes(damaged)
            try:
                read_all(run)
            except ConfigError as error:
                messages.append(str(error))
    paths = [str(run / "predictions.csv"), str(run / name)]
    assert all("\n" not in message and any(path in message for path in paths) for message in messages)
    assert 70 < len(messages) <= 80


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"test_accuracy": 1.5}, "test_accuracy=1.5 is not a number from 0 to 1"),
        ({"test_accuracy": 0.5}, "test_accuracy=0.5 contradicts"),
        ({"test_auroc": "0.9"}, "test_auroc='0.9'"),
        ({"test_mcc": -1.5}, "test_mcc=-1.5 is not a number from -1 to 1"),
        ({"epochs": 1.0}, r"epochs=1\.0 is not a whole number"),
        ({"seed": True}, "seed=True"),
        ({"collapsed": 0}, "collapsed=0 is not true or false"),
        ({"status": "finished"}, "status='finished' is not done or partial"),
        ({"model": "a\x1b[31m"}, "model="),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"parameters_trainable": 2}, "more trainable parameters"),
    ],
)
def test_an_invalid_result_raises_an_error_with_its_name(change: dict[str, object], reason: str, run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "of a later version": [1]}))
    read_all(run)
    (run / "results.json").write_text(json.dumps({**results, **change}))
    with pytest.raises(ConfigError, match=reason):
        read_all(run)


def test_the_error_for_an_unreadable_results_file_does_not_mention_writing(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def deny(path: Path, *arguments: object, **options: object) -> object:
        if path.name == "results.json":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)  # type: ignore[call-overload] # passed on unchanged

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(ConfigError, match=r"results\.json is damaged.*Permission denied") as error:
        report([run.parent])
    assert "cannot be written" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"status": "done"}', "[" * 100_000, '{"seed": NaN}', "\0"])
def test_a_damaged_status_is_ignored_with_a_warning(text: str, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_failed_run(run.parent / "vgg16-sgd-s0", "vgg16", "sgd")
    (run.parent / "vgg16-sgd-s0" / "status.json").write_text(text)
    assert read_status(run.parent / "vgg16-sgd-s0") is None
    assert [found.folder for found in collect([run.parent])] == [run]
    assert "1 unreadable status.json" in caplog.text
    assert "vgg16-sgd-s0" in caplog.text
    with pytest.raises(ConfigError, match=r"status\.json"):
        collect([run.parent / "vgg16-sgd-s0"])


def test_status_and_command_survive_a_round_trip(tmp_path: Path) -> None:
    status = Status("now", "done", "", "", "vgg16", "sgd", 3, "study", "hash")
    write_status(tmp_path, status)
    assert load_status(tmp_path) == status
    command = Command("now", overwrite=True, complete=False)
    write_command(tmp_path, command)
    assert read_command(tmp_path) == command
    for text in ('{"name": 1, "overwrite": true, "complete": false}', '{"name": "a", "overwrite": 1}', "[1]"):
        (tmp_path / ".command.json").write_text(text)
        assert read_command(tmp_path) is None
