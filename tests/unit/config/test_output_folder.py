import errno
import multiprocessing
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from filelock import FileLock

from pneumo.config.output_folder import is_first_process, run_lock
from pneumo.errors import ConfigError


def hold(folder: Path, held: Event) -> None:
    with run_lock(folder):
        held.set()
        multiprocessing.Event().wait()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()
    first = context.Process(target=hold, args=(tmp_path / "run", held), daemon=True)
    first.start()
    assert held.wait(30)
    with pytest.raises(ConfigError, match=r"training in .*run, .*hydra\.run\.dir=FOLDER"), run_lock(tmp_path / "run"):
        pass
    first.kill()
    first.join()
    with run_lock(tmp_path / "run"), run_lock(tmp_path / "run"):  # in one process as often as needed
        pass


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")])
def test_a_file_system_without_locks_gets_a_warning(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with run_lock(tmp_path / "run"):
        assert f"run cannot be locked ({error})" in caplog.text


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0", "SLURM_PROCID": "3"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "1"}, False),
    ],
)
def test_only_the_first_process_of_a_run_locks(environment: dict[str, str], first: bool) -> None:
    assert is_first_process(environment) == first
