import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.files import atomic_path, bounded_name, escape_path, unescape_path, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
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


def test_the_new_file_is_whole_and_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    mask = os.umask(0o022)
    try:
        write_text(path, "Lungenentzündung\n")
    finally:
        os.umask(mask)
    assert path.read_bytes() == "Lungenentzündung\n".encode()
    assert path.stat().st_mode & 0o777 == 0o644


@given(st.text(st.sampled_from("\\udcxe95f/aé\udcff\udc80")))
def test_any_name_can_be_written_as_text_and_read_again(path: str) -> None:
    text = escape_path(path)
    text.encode()
    assert unescape_path(text) == path


@given(st.text(st.characters(codec="utf-8", exclude_characters="\\")))
def test_ordinary_names_stay_as_they_are(path: str) -> None:
    assert escape_path(path) == path == unescape_path(path)


def test_a_name_that_is_not_utf8_is_written_as_python_spells_it(tmp_path: Path) -> None:
    assert escape_path("a/\udce9.png") == r"a/\udce9.png"
    write_text(tmp_path / "a.txt", "\udce9")
    assert (tmp_path / "a.txt").read_bytes() == rb"\udce9"


@settings(max_examples=25)
@given(st.text(min_size=1, max_size=400), st.sampled_from(["", ".png", "-2.png"]))
def test_names_of_files_are_bounded_and_their_own(name: str, suffix: str) -> None:
    bounded = bounded_name(name, suffix)
    assert len(os.fsencode(bounded)) <= 255
    assert bounded.endswith(suffix)
    assert (bounded == name + suffix) == (len(os.fsencode(name + suffix)) <= 255)
    assert bounded != bounded_name(f"{name}x", suffix)


def test_a_name_of_full_length_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / bounded_name("é" * 400, ".json"), "a")
    assert len(list(tmp_path.iterdir())) == 1
