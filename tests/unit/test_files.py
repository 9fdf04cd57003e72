import os
from pathlib import Path

import pytest

from pneumo.files import atomic_path, write_text


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
