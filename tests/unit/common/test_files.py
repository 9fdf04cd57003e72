import errno
import os
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.common.disk import FileError, disk_error, suppress_thread_tracebacks
from pneumo.common.files import atomic_path, bounded_name, escape_path, unescape_path, write_text
from pneumo.errors import PneumoError


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_text(path, "old")

    def crash() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        crash()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["results.json"]


def test_a_new_file_is_complete_and_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    mask = os.umask(0o022)
    try:
        write_text(path, "Lungenentzündung\n")
    finally:
        os.umask(mask)
    assert path.read_bytes() == "Lungenentzündung\n".encode()
    assert path.stat().st_mode & 0o777 == 0o644


@given(st.text(st.sampled_from("\\udcxe95f/aé\udcff\udc80")))
def test_escaping_a_path_is_reversible(path: str) -> None:
    text = escape_path(path)
    text.encode()
    assert unescape_path(text) == path


@given(st.text(st.characters(codec="utf-8", exclude_characters="\\")))
def test_ordinary_paths_are_not_escaped(path: str) -> None:
    assert escape_path(path) == path == unescape_path(path)


def test_a_name_that_is_not_utf8_is_written_as_a_python_escape(tmp_path: Path) -> None:
    assert escape_path("a/\udce9.png") == r"a/\udce9.png"
    write_text(tmp_path / "a.txt", "\udce9")
    assert (tmp_path / "a.txt").read_bytes() == rb"\udce9"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_error_during_a_write_is_a_user_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    write_text(path, "old")

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(FileError, match=rf"results\.json cannot be written \({os.strerror(number)}\): \w+") as caught:
        write_text(path, "new")
    assert isinstance(caught.value, PneumoError)
    assert (caught.value.errno, caught.value.strerror) == (number, os.strerror(number))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["results.json"]


def test_a_folder_that_is_removed_during_a_write_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(FileError, match=r"run/a\.txt cannot be written"),
        atomic_path(tmp_path / "run" / "a.txt") as path,
    ):
        shutil.rmtree(path.parent)


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(FileError, match=r"a\.txt cannot be written"):
        write_text(tmp_path / "run" / "a.txt", "x")


def test_an_error_about_another_file_is_not_changed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing") as caught, atomic_path(tmp_path / "a.txt") as path:
        path.write_text((tmp_path / "missing").read_text())
    assert not isinstance(caught.value, FileError)
    assert os.listdir(tmp_path) == []


def test_only_disk_failures_are_user_errors() -> None:
    full = disk_error(OSError(errno.ENOSPC, "No space left on device"))
    assert full is not None
    assert "No space left on device" in str(full)
    assert disk_error(full) is full
    assert disk_error(FileNotFoundError(errno.ENOENT, "No such file", "weights.bin")) is None
    assert disk_error(OSError("cannot identify image file")) is None


@pytest.mark.parametrize(("number", "silent"), [(errno.ENOSPC, True), (errno.EINVAL, False)])
def test_a_thread_that_fails_on_a_full_disk_prints_nothing(
    number: int, silent: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)

    def fail() -> None:
        raise OSError(number, "failed")

    with suppress_thread_tracebacks():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert (capsys.readouterr().err == "") == silent


@settings(max_examples=25)
@given(st.text(min_size=1, max_size=400), st.sampled_from(["", ".png", "-2.png"]))
def test_bounded_names_are_short_and_unique(name: str, suffix: str) -> None:
    bounded = bounded_name(name, suffix)
    assert len(os.fsencode(bounded)) <= 255
    assert bounded.endswith(suffix)
    assert (bounded == name + suffix) == (len(os.fsencode(name + suffix)) <= 255)
    assert bounded != bounded_name(f"{name}x", suffix)


def test_a_name_of_maximum_length_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / bounded_name("é" * 400, ".json"), "a")
    assert len(list(tmp_path.iterdir())) == 1
