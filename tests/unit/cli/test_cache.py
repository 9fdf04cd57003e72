import shutil
from pathlib import Path

import pytest
import rich
from helpers.commands import ROOT
from helpers.hostile_names import CONTROLS, is_harmless
from helpers.run_files import write_failed_run
from helpers.shared_arrays import RECIPE, blocks
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from typer.testing import CliRunner

from pneumo.cli import app
from pneumo.common.array_cache import Recipe, find, find_or_build
from pneumo.common.input_format import InputFormat
from pneumo.data.cache_inventory import KINDS, list_entries
from pneumo.data.image_cache import RadiographDataset, content_hash, find_near_duplicates
from pneumo.data.index import index_radiographs
from pneumo.data.phantoms import write_phantoms
from pneumo.runs.collection import collect


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rich.get_console(), "_width", 200)


def test_every_kind_of_entry_is_listed_and_cleared(tmp_path: Path, phantoms: Path) -> None:
    images = index_radiographs(phantoms, ("NORMAL", "PNEUMONIA"))[:8]
    find_near_duplicates(
        RadiographDataset(phantoms, images, InputFormat(64)), 0, content_hash(phantoms, images, tmp_path), tmp_path
    )
    for kind in ("features", "means"):  # with the metadata keys of pneumo.training.backbone_pass
        about = {"architecture": f"timm/{kind}[/y]", "images": 8, "image_size": 64, "views": 2, "device": "cpu"}
        find_or_build(tmp_path, Recipe(kind, about, (100, 3), "float32", "Computing"), blocks)
    about = {"version": [1, 1], "phantoms": 8, "steps": 3}  # with the metadata keys of pneumo.training.lung_training
    find_or_build(tmp_path, Recipe("locators", about, (100, 3), "float32", "Training"), blocks)
    write_phantoms(tmp_path / "phantoms" / "v1", seed=0, train=2, val=0, test=2)
    assert {entry.kind for entry in list_entries(tmp_path)} == {*KINDS}
    listed = CliRunner().invoke(app, ["cache", "list", "--dir", str(tmp_path)])
    assert listed.exit_code == 0
    assert all(kind in listed.output for kind in KINDS)
    for text in (
        "8 images at 64 pixels",
        "8 images ",
        "timm/means[/y], 8 images at 64 pixels, 2 augmented views",
        "trained on 8",
    ):
        assert text in listed.output
    for kind in KINDS:
        cleared = CliRunner().invoke(app, ["cache", "clear", "--kind", kind, "--dir", str(tmp_path)])
        assert "deleted 1 of" in cleared.output
    assert list_entries(tmp_path) == []


@pytest.mark.parametrize(
    "about", [b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"a": "' + b"x" * 2_000_000, b'{"a": 1}', b'{"images": [1]}']
)
def test_entries_with_damaged_or_foreign_metadata_are_tolerated(about: bytes, tmp_path: Path) -> None:
    find_or_build(tmp_path, RECIPE, blocks)
    (tmp_path / "images" / f"foreign{CONTROLS}").mkdir(parents=True)
    folder = tmp_path / "images" / f"{0:016x}"
    folder.mkdir()
    (folder / "about.json").write_bytes(about)
    (tmp_path / "images" / "file").touch()
    listed = CliRunner().invoke(app, ["cache", "list", "--dir", str(tmp_path)])
    assert listed.exit_code == 0
    assert "2 entries" in listed.output
    assert ("about.json is damaged" in listed.output) == (not about.endswith(b"}"))
    assert is_harmless(listed.output)
    assert "deleted 1 of 2" in CliRunner().invoke(app, ["cache", "clear", folder.name, "--dir", str(tmp_path)]).output


def test_readers_of_runs_and_caches_ignore_the_readme_in_outputs(tmp_path: Path) -> None:
    readme = Path(shutil.copy(ROOT / "outputs" / "README.md", tmp_path))
    write_failed_run(tmp_path / "sweep" / "study" / "resnext-sgd-s0", "resnext", "sgd")
    assert [run.name for run in collect([tmp_path])] == ["sweep/study/resnext-sgd-s0"]
    for command in (["list"], ["clear", "--all"]):
        done = CliRunner().invoke(app, ["cache", *command, "--dir", str(tmp_path)])
        assert (done.exit_code, "0 entries" in " ".join(done.output.split())) == (0, True)
    events = EventMultiplexer()
    events.AddRunsFromDirectory(str(tmp_path))
    assert events.Runs() == {}
    assert readme.is_file()


def test_the_command_lists_and_clears(tmp_path: Path) -> None:
    find_or_build(tmp_path, RECIPE, blocks)
    (tmp_path / "phantoms" / "v1").mkdir(parents=True)
    command = CliRunner()
    listed = command.invoke(app, ["cache", "list", "--dir", str(tmp_path)])
    assert RECIPE.key in listed.output
    assert "2 entries" in listed.output
    refused = command.invoke(app, ["cache", "clear", "--dir", str(tmp_path)])
    assert "No entries are selected" in str(refused.exception)
    kept = command.invoke(app, ["cache", "clear", "--unused", "1", "--dir", str(tmp_path)])
    assert "deleted 0 of 2" in kept.output
    other = command.invoke(app, ["cache", "clear", RECIPE.key, "--kind", "images", "--dir", str(tmp_path)])
    assert "deleted 0 of 2" in other.output  # an entry must match all conditions
    negative = command.invoke(app, ["cache", "clear", "--unused", "-1", "--dir", str(tmp_path)])
    assert "must be 0 or more days" in str(negative.exception)
    cleared = command.invoke(app, ["cache", "clear", "--all", "--dir", str(tmp_path)])
    assert "deleted 1 of 2" in cleared.output
    named = command.invoke(app, ["cache", "clear", "v1", "--dir", str(tmp_path)])
    assert "deleted 1 of 1" in named.output
    for wrong in (["clear", "nosuch"], ["clear", "--kind", "nosuch"]):
        refused = command.invoke(app, ["cache", *wrong, "--dir", str(tmp_path)])
        assert "nosuch is unknown" in str(refused.exception)
    missing = command.invoke(app, ["cache", "list", "--dir", str(tmp_path / "nosuch")])
    assert "does not exist" in str(missing.exception)
    assert "Examples:" in command.invoke(app, ["cache", "clear", "--help"]).output


def test_entries_with_foreign_files_are_not_deleted(tmp_path: Path) -> None:
    find_or_build(tmp_path, RECIPE, blocks)
    find_or_build(tmp_path, Recipe("images", {}, (100, 3), "float32", "Decoding"), blocks)
    foreign = [tmp_path / "images" / "scans" / "a.png", tmp_path / "features" / RECIPE.key / "notes of mine.txt"]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    command = CliRunner()
    cleared = command.invoke(app, ["cache", "clear", "--all", "--dir", str(tmp_path)])
    assert f"kept features/{RECIPE.key}" in cleared.output
    assert "deleted 1 of 2" in cleared.output
    assert all(path.exists() for path in foreign)
    assert find(tmp_path, RECIPE) is not None
