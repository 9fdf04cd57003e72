import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
from helpers.run_files import RESULTS
from helpers.setups import make_setup

from pneumo.errors import ConfigError
from pneumo.runs.status import read_tracker_ids
from pneumo.training.experiment_tracker import Tracker
from pneumo.training.tracking import Setup


class Memory(Tracker):
    """Tracker that keeps the names of its calls and fails in one of them."""

    title, extra, address = "Memory", "memory", "http://nowhere"

    def __init__(self, folder: Path, fails: str = "", error: type[Exception] = OSError) -> None:
        super().__init__(str(folder), "project", "name")
        self.fails, self.error, self.calls = fails, error, list[str]()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails:
            raise self.error(f"no\nconnection in {name}.")

    def start(self, run_id: str | None) -> str:
        self._call(f"start {run_id}")
        return run_id or "new"

    def send_setup(self, setup: Setup) -> None:
        self._call("setup")

    def send_metrics(self, metrics: Mapping[str, float], epochs: int) -> None:
        self._call(f"metrics {dict(metrics)} {epochs}")

    def send_images(self, images: Mapping[str, bytes], epochs: int) -> None:
        self._call("images")

    def send_results(self, metrics: Mapping[str, float], epochs: int) -> None:
        self._call("results")

    def end(self, failed: bool) -> None:
        self._call(f"end {failed}")


def test_a_tracker_receives_the_whole_run_and_a_resumed_one_its_id(tmp_path: Path) -> None:
    for run_id in (None, "new"):
        tracker = Memory(tmp_path)
        assert tracker.version is None
        tracker.log_setup(make_setup())
        tracker.log_metrics({"val/loss": 0.5, "epoch": 0}, 9)
        tracker.log_images({"test/roc": b""}, 1)
        tracker.finalize("success")  # of training; the test follows
        tracker.log_results(RESULTS, make_setup(), 1)
        tracker.close(failed=False)
        tracker.log_metrics({"val/loss": 0.5, "epoch": 0}, 9)
        sent = [f"start {run_id}", "setup", "metrics {'val/loss': 0.5} 1", "images", "results", "end False"]
        assert tracker.calls == sent
        assert (tracker.name, tracker.run_id, read_tracker_ids(tmp_path)) == ("project", "new", {"memory": "new"})


@pytest.mark.parametrize("fails", ["start None", "setup"])
def test_a_tracker_that_fails_at_the_start_is_a_user_error(fails: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"logger\.memory cannot log to http://nowhere \(no connection in {fails}\)"):
        Memory(tmp_path, fails).log_setup(make_setup())
    assert read_tracker_ids(tmp_path) == {}


@pytest.mark.parametrize("fails", ["metrics {'val/loss': 0.5} 1", "images", "results", "end False"])
def test_a_tracker_that_fails_later_is_not_used_again(
    fails: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Memory(tmp_path, fails)
    tracker.log_setup(make_setup())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            tracker.log_metrics({"val/loss": 0.5, "epoch": 0}, 9)
            tracker.log_images({"test/roc": b""}, 1)
            tracker.log_results(RESULTS, make_setup(), 1)
            tracker.close(failed=False)
    assert tracker.calls[-1] == fails
    (record,) = caplog.records
    for words in ("Memory failed", "continues without it", str(tmp_path / "results.json")):
        assert words in record.message


def test_a_bug_is_not_hidden(tmp_path: Path) -> None:
    tracker = Memory(tmp_path, "images", ZeroDivisionError)
    tracker.log_setup(make_setup())
    with pytest.raises(ZeroDivisionError):
        tracker.log_images({}, 1)


def test_a_failed_run_is_marked(tmp_path: Path) -> None:
    tracker = Memory(tmp_path)
    tracker.log_setup(make_setup())
    tracker.finalize("failed")
    tracker.close(failed=False)
    assert tracker.calls[2:] == ["end True"]
