"""Hostile names of files and classes in the outputs of `pneumo predict`."""

import csv
import errno
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.commands import Run
from helpers.damaged_images import SMOOTH_IMAGES, encode_image
from helpers.hostile_names import NAMES, formulas, is_harmless
from rich.console import Console

from pneumo.common.files import atomic_path
from pneumo.inference.backend import Rules
from pneumo.inference.explain import overlays
from pneumo.inference.explain.overlays import name_overlays
from pneumo.inference.prediction import Prediction, to_csv, to_lines, to_terminal


@pytest.fixture
def hostile_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write images with hostile names and a text file to the current folder."""
    (tmp_path / "scans").mkdir()
    monkeypatch.chdir(tmp_path / "scans")
    for name in NAMES:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(encode_image(SMOOTH_IMAGES[1], "PNG"))
    Path("@\x1b]0;own\x07.txt").write_text("no image")
    return [*NAMES, "@\x1b]0;own\x07.txt"]


def test_outputs_escape_file_names(hostile_files: list[str], best: Path, tmp_path: Path, run: Run) -> None:
    status, out, err = run(best, "--csv", tmp_path / "x.csv", "--json", tmp_path / "x.json", "--", *hostile_files)
    assert status == 1
    lines = [line.split("\t") for line in out.splitlines()]
    assert [len(line) for line in lines] == [4] * len(hostile_files)
    assert all(is_harmless(field) for line in lines for field in line)
    assert is_harmless(err)
    assert len(err.splitlines()) == 2
    rows = list(csv.reader(io.StringIO((tmp_path / "x.csv").read_text(), newline="")))
    assert not [cell for row in rows for cell in formulas(row)]
    assert [Path(row[0]).exists() for row in rows[1:]] == [name.isprintable() for name in hostile_files]
    assert [record["path"] for record in json.loads((tmp_path / "x.json").read_text())["predictions"]] == [
        line[0] for line in lines
    ]


@pytest.mark.parametrize("name", [name.removesuffix(".png") for name in NAMES])
def test_outputs_escape_class_names(name: str) -> None:
    rules = Rules(name, ("path", name, "[/y]"), 32, 1.0, 0.5, 0.3, True)
    probability = dict(zip(rules.classes, (0.2, 0.5, 0.3), strict=True))
    predictions = [Prediction(Path("a.png"), probability, name, False, 0.0, (name,))] * 2
    (line, _), rows = to_lines(predictions), list(csv.reader(io.StringIO(to_csv(predictions, rules), newline="")))
    assert len(line.split("\t")) == 4
    assert is_harmless(line.replace("\t", ""))
    assert not [cell for row in rows for cell in formulas(row)]
    assert rows[1][0] == "a.png"  # a class can have the name of a column
    assert rows[1][-7:-4] == ["0.2", "0.5", "0.3"]
    for repeats in (1, 30):
        output = io.StringIO()
        console = Console(file=output, width=200, force_terminal=True, color_system=None)
        console.print(to_terminal(predictions * repeats, rules, saved=True))
        assert is_harmless(output.getvalue())
        assert "[/y]" in output.getvalue()


def test_overlays_of_images_with_long_names_have_unique_names() -> None:
    paths = [Path(f"{'a' * 250}{i}.x") for i in range(3)]
    names = [*name_overlays(paths).values()]
    assert len({*names}) == 3
    assert max(map(len, names)) == 255


def test_overlays_with_impossible_names_do_not_prevent_writing_the_others(
    best: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "b.png.png":  # as on a file system with shorter names
            raise OSError(errno.ENAMETOOLONG, "File name too long")
        with atomic_path(path) as temporary:
            yield temporary

    monkeypatch.setattr(overlays, "atomic_path", refuse)
    (tmp_path / "scans").mkdir()
    for name in ("a" * 250 + ".png", "b.png", "c.png", "é" * 125):
        (tmp_path / "scans" / name).write_bytes(encode_image(SMOOTH_IMAGES[1], "PNG"))
    status, _, err = run(best, tmp_path / "scans", "--explain", tmp_path / "maps")
    assert status == 1
    assert "1 of 4 saliency maps" in err
    assert f"{tmp_path / 'scans' / 'b.png'}" in err
    names = {path.name for path in (tmp_path / "maps").iterdir()}
    assert {"c.png.png", "overview.png"} < names
    assert len(names) == 4
