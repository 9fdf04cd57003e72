import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from errno import ENOSPC
from pathlib import Path

import numpy as np
import pytest
from helpers.shared_arrays import RECIPE, WHOLE, blocks, request_array

from pneumo.common import array_cache
from pneumo.common.array_cache import Array, Recipe, find, find_or_build
from pneumo.errors import CacheError


def cut_at(row: int, started: list[int]) -> Callable[[int], Iterator[Array]]:
    def cut(start: int) -> Iterator[Array]:
        started.append(start)
        for i in range(start, row, 7):
            yield WHOLE[i : i + 7]
        raise KeyboardInterrupt

    return cut


def test_an_array_is_built_once_and_read_only(tmp_path: Path) -> None:
    assert find(tmp_path, RECIPE) is None
    built = find_or_build(tmp_path, RECIPE, blocks)
    np.testing.assert_array_equal(built, WHOLE)
    again = find_or_build(tmp_path, RECIPE, cut_at(0, []))
    assert isinstance(again, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 0
    left = sorted(path.name for path in (tmp_path / "features" / RECIPE.key).iterdir())
    assert left == ["about.json", "array.npy"]


def test_an_interrupted_computation_resumes_at_a_block_boundary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_cache, "FLUSH_INTERVAL", -1.0)
    started: list[int] = []
    for row in (21, 63):
        with pytest.raises(KeyboardInterrupt):
            find_or_build(tmp_path, RECIPE, cut_at(row, started))
        assert find(tmp_path, RECIPE) is None
    assert started == [0, 21]
    part = tmp_path / "features" / RECIPE.key / "array.npy.part"
    with part.open("ab") as file:
        file.write(b"a block that was being written")
    undisturbed = find_or_build(tmp_path / "other", RECIPE, blocks)
    assert bytes(find_or_build(tmp_path, RECIPE, blocks)) == bytes(undisturbed)
    assert not part.exists()


def test_notes_survive_a_kill_and_are_read_with_the_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_cache, "FLUSH_INTERVAL", -1.0)

    def noting(notes: array_cache.Notes, last: int) -> Callable[[int], Iterator[Array]]:
        def cut(start: int) -> Iterator[Array]:
            for i in range(start, len(WHOLE), 7):
                if i >= last:
                    raise KeyboardInterrupt
                notes[f"{i}.png"] = [f"note {i}"]
                yield WHOLE[i : i + 7]

        return cut

    for last in (14, 28):
        notes: array_cache.Notes = {}
        with pytest.raises(KeyboardInterrupt):
            find_or_build(tmp_path, RECIPE, noting(notes, last), notes)
    for _ in ("computed", "read"):
        notes = {}
        find_or_build(tmp_path, RECIPE, noting(notes, len(WHOLE)), notes)
        assert notes == {f"{i}.png": [f"note {i}"] for i in range(0, len(WHOLE), 7)}
    find_or_build(tmp_path, RECIPE, noting({}, 0))  # the notes are optional


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00v\x00"])
def test_a_damaged_array_is_recomputed(damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    find_or_build(tmp_path, RECIPE, blocks)
    path = tmp_path / "features" / RECIPE.key / "array.npy"
    path.write_bytes(path.read_bytes()[:200] if damage else b"")
    np.testing.assert_array_equal(find_or_build(tmp_path, RECIPE, blocks), WHOLE)
    assert "is damaged" in caplog.text


def test_a_full_disk_is_explained_and_leaves_no_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(CacheError, match=r"the disk is full.*paths\.cache_dir=FOLDER.*data\.cache=false"):
        find_or_build(tmp_path, RECIPE, blocks)
    monkeypatch.undo()

    def full(start: int) -> Iterator[Array]:
        yield from list(blocks(start))[:3]
        raise OSError(ENOSPC, "No space left on device")

    with pytest.raises(CacheError, match="the disk is full"):
        find_or_build(tmp_path, RECIPE, full)
    assert find(tmp_path, RECIPE) is None
    np.testing.assert_array_equal(find_or_build(tmp_path, RECIPE, blocks), WHOLE)


def test_the_key_depends_on_everything_that_determines_the_content() -> None:
    others = [
        Recipe("images", RECIPE.provenance, RECIPE.shape, RECIPE.dtype, "Computing"),
        Recipe("features", {"weights": "abd"}, RECIPE.shape, RECIPE.dtype, "Computing"),
        Recipe("features", RECIPE.provenance, (100, 4), RECIPE.dtype, "Computing"),
        Recipe("features", RECIPE.provenance, RECIPE.shape, "float16", "Computing"),
    ]
    assert len({recipe.key for recipe in [RECIPE, *others]}) == 5
    assert Recipe("features", {"weights": "abc"}, (100, 3), "float32", "otherwise").key == RECIPE.key


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_one_of_several_processes_builds_while_the_others_wait_and_log_it(count: int, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(count)
    processes = [context.Process(target=request_array, args=(tmp_path, number, together)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count
    roles = [(tmp_path / f"{number}.done").read_text() for number in range(count)]
    assert sorted(roles) == ["built"] + ["waited"] * (count - 1)
    logged = [role for n, role in enumerate(roles) if "waiting for another" in (tmp_path / f"{n}.log").read_text()]
    assert logged
    assert set(logged) == {"waited"}


@pytest.mark.parametrize("row", [35, 98])
def test_an_entry_that_is_deleted_during_its_computation_is_computed_again(
    row: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(array_cache, "FLUSH_INTERVAL", 0)
    starts: list[int] = []

    def deleting(start: int) -> Iterator[Array]:
        starts.append(start)
        for i, block in enumerate(blocks(start), 1):
            if len(starts) == 1 and 7 * i == row:
                shutil.rmtree(tmp_path)
                if row == 35:  # another run has already started to compute it again
                    (tmp_path / "features" / RECIPE.key).mkdir(parents=True)
                    (tmp_path / "features" / RECIPE.key / "array.npy.part").touch()
            yield block

    np.testing.assert_array_equal(find_or_build(tmp_path, RECIPE, deleting), WHOLE)
    assert starts == [0, 0]
    assert "was deleted during the computation; starting again" in caplog.text


def test_a_row_count_without_matching_rows_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "features" / RECIPE.key
    folder.mkdir(parents=True)
    for part in (None, b"short"):
        (folder / "rows.txt").write_text("70")
        if part is not None:
            (folder / "array.npy.part").write_bytes(part)
        with pytest.raises(KeyboardInterrupt):
            find_or_build(tmp_path, RECIPE, cut_at(14, []))
    np.testing.assert_array_equal(find_or_build(tmp_path, RECIPE, blocks), WHOLE)


def test_an_impossible_cache_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=r"cannot be written.*paths\.cache_dir=FOLDER"):
        find_or_build(tmp_path / "file", RECIPE, blocks)
