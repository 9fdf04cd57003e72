import errno
import os
from pathlib import Path

import pytest

from pneumo.common.disk import PREFIX, find_user_error, remove_stale_below, temporary_file, temporary_folder
from pneumo.common.files import write_text
from pneumo.errors import ConfigError, DataError


def leave(folder: Path) -> tuple[Path, Path]:
    """Create a temporary file and a temporary folder in a child process that exits without cleanup."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        with temporary_file(folder, ".csv") as file, temporary_folder(folder) as below:
            (below / "part").write_text("half")
            os.write(write, f"{file}\n{below}".encode())
            os._exit(9)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as stream:
        file, below = map(Path, stream.read().splitlines())
    assert file.exists()
    assert (below / "part").exists()
    return file, below


def test_the_next_writer_removes_only_files_of_killed_processes(tmp_path: Path) -> None:
    left = leave(tmp_path)
    foreign = tmp_path / ".results-abcdefgh.json"
    foreign.touch()
    write_text(tmp_path / "a.txt", "whole")
    assert not any(path.exists() for path in left)
    assert sorted(os.listdir(tmp_path)) == [foreign.name, "a.txt"]


def test_temporary_files_in_use_are_kept(tmp_path: Path) -> None:
    with temporary_file(tmp_path) as file, temporary_folder(tmp_path) as folder:
        remove_stale_below(tmp_path, depth=0)
        assert file.exists()
        assert folder.is_dir()
    assert os.listdir(tmp_path) == []


def test_temporary_files_of_another_machine_are_kept_for_a_day(tmp_path: Path) -> None:
    other = tmp_path / f"{PREFIX}000000-abcdefgh.csv"
    other.touch()
    remove_stale_below(tmp_path, depth=0)
    assert other.exists()
    os.utime(other, (0, 0))
    remove_stale_below(tmp_path, depth=0)
    assert not other.exists()


def test_subfolders_are_cleaned_down_to_a_depth_and_links_are_not_followed(tmp_path: Path) -> None:
    for name in ("run/figures", "run/figures/deep", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        leave(tmp_path / name)
    (tmp_path / "run" / "link").symlink_to(tmp_path / "elsewhere")
    remove_stale_below(tmp_path / "run", depth=1)
    left = {path.parent.name for path in tmp_path.rglob(f"{PREFIX}*")}
    assert left == {"deep", "elsewhere"}


def test_a_user_error_is_found_at_any_depth_of_the_causes() -> None:
    error = RuntimeError("while building")
    error.__cause__ = ValueError("of an argument")
    error.__cause__.__cause__ = ConfigError("seed=-1 must be more.")
    assert find_user_error(error) == ("ConfigError", "seed=-1 must be more.")


def test_only_the_traceback_of_a_worker_is_removed_from_a_user_error() -> None:
    text = "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File ...\n"
    text += "pneumo.errors.DataError: a.jpeg: cannot be read.\n"
    assert find_user_error(DataError(text)) == ("DataError", "a.jpeg: cannot be read.")
    assert find_user_error(DataError("DataError: a.jpeg: cannot be read.")) == (
        "DataError",
        "DataError: a.jpeg: cannot be read.",
    )


@pytest.mark.parametrize(("number", "message"), [(errno.ENOSPC, "a.csv cannot be written"), (errno.ENOENT, None)])
def test_only_disk_errors_of_the_system_are_user_errors(number: int, message: str | None) -> None:
    user_error = find_user_error(OSError(number, os.strerror(number), "a.csv"))
    assert (user_error is None) if message is None else (user_error is not None and user_error[1].startswith(message))
