import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from helpers.checkpoints import SUBTYPES, write_checkpoint, write_untrained
from helpers.commands import Run, command_runner
from helpers.damaged_images import SMOOTH_IMAGES, encode_image
from helpers.labelled_site import write_site

from pneumo.inference.prediction import NOTICE


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained(tmp_path_factory.mktemp("network") / "best.ckpt", "pneumo/xraychestnet", 32)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `pneumo evaluate` in a temporary folder; return its status, output and errors."""
    monkeypatch.chdir(tmp_path)
    return command_runner("evaluate", monkeypatch, capsys)


def test_the_command_prints_results_and_writes_all_files(
    checkpoint: Path, site: Path, tmp_path: Path, run: Run
) -> None:
    files = {suffix: tmp_path / "new" / f"x.{suffix}" for suffix in ("json", "csv", "html")}
    options = [item for suffix, path in files.items() for item in (f"--{suffix}", path)]
    status, out, _ = run(checkpoint, site, "--by", "view", "--by", "sex,view", "--prevalence", "0.2,0.05", *options)
    assert status == 0
    assert NOTICE in out
    assert [f"Wrote {path}." in out for path in files.values()] == [True] * 3
    assert "Use --html or --json" not in " ".join(out.split())
    content = json.loads(files["json"].read_text())
    assert [each["prevalence"] for each in content["predictive_values"]] == [0.2, 0.05]
    assert list(dict.fromkeys(group["factor"] for group in content["subgroups"])) == ["view", "sex"]
    assert content["checkpoint"] == str(checkpoint)
    assert len(list(csv.DictReader(io.StringIO(files["csv"].read_text())))) == content["images"] == 120
    assert "<h1>" in files["html"].read_text()


def test_the_split_of_a_tree_is_stated(checkpoint: Path, phantoms: Path, run: Run, tmp_path: Path) -> None:
    status, out, _ = run(checkpoint, phantoms, "--split", "val", "--json", tmp_path / "x.json")
    assert status == 0
    assert "using val" in out
    assert json.loads((tmp_path / "x.json").read_text())["images"] == 16


@pytest.mark.slow
def test_an_exported_network_and_another_checkpoint_are_evaluated(
    checkpoint: Path,
    site: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exported = tmp_path / "network.onnx"
    assert command_runner("export", monkeypatch, capsys)(checkpoint, "--output", exported)[0] == 0
    status, out, _ = run(exported, site, "--against", checkpoint, "--json", tmp_path / "x.json")
    assert status == 0
    content = json.loads((tmp_path / "x.json").read_text())
    assert all(abs(each["difference"]) < 1e-6 for each in content["comparison"]["differences"])
    assert "Other network" in out


MISTAKES = {
    "no data": ([], "No data"),
    "unknown column of --by": (["{table}", "--by", "ward"], "--by ward"),
    "identifier in --by": (["{table}", "--by", "patient"], "not a factor"),
    "prevalence out of range": (["{table}", "--prevalence", "20"], "prevalence 20"),
    "prevalence without numbers": (["{table}", "--prevalence", "5%"], "--prevalence"),
    "map without a pair": (["{table}", "--map", "NORMAL"], "--map 'NORMAL'"),
    "column without a pair": (["{table}", "--column", "file"], "--column 'file'"),
    "missing folder": (["missing"], "missing"),
    "unknown split": (["{table}", "--split", "holdout"], "holdout"),
    "unknown labels": (["{covid}"], "COVID"),
    "missing column": (["{renamed}"], "file"),
    "duplicated row": (["{duplicated}"], "duplicated.csv"),
    "missing files": (["{absent}"], "absent.csv"),
    "empty table": (["{empty}"], "empty.csv"),
    "header only": (["{header}"], "header.csv"),
    "Excel workbook": (["{workbook}"], "book.xlsx"),
    "more tables than folders": (["{folder}", "--labels", "{table}", "--labels", "{table}"], "--labels"),
    "output is an input": (["{table}", "--csv", "{table}"], "--csv"),
    "same output twice": (["{table}", "--csv", "x", "--json", "x"], "x"),
    "output is an image": (["{table}", "--html", "{image}"], "--html"),
    "run that did not finish": (["{table}", "--run", "{folder}"], "results.json"),
    "folder without training images": (["{table}", "--training-data", "{void}"], "--training-data"),
    "other classes in --against": (["{table}", "--against", "{subtypes}"], "BACTERIAL"),
    "unknown device": (["{table}", "--device", "tpu"], "--device"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of valid and of faulty inputs by name."""
    folder = tmp_path_factory.mktemp("inputs")
    table = write_site(folder, images=8)
    lines = table.read_text().splitlines()
    (folder / "void").mkdir()
    faulty = {
        "covid": [line.replace("PNEUMONIA", "COVID") for line in lines],
        "renamed": [line.replace("file,", "Image Index,") for line in lines],
        "duplicated": [*lines, lines[-1]],
        "absent": [*lines, "absent.png,NORMAL,x,1,M,AP"],
        "empty": [],
        "header": lines[:1],
    }
    paths = {name: folder / f"{name}.csv" for name in faulty}
    for name, path in paths.items():
        path.write_text("\n".join(faulty[name]))
    workbook = folder / "book.xlsx"
    workbook.write_bytes(b"PK\x03\x04")
    subtypes = write_checkpoint(folder / "subtypes.ckpt", SUBTYPES)
    places = {"table": table, "folder": folder, "image": folder / "000.png", "void": folder / "void"}
    return {**paths, **places, "workbook": workbook, "subtypes": subtypes}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_paragraph(mistake: str, checkpoint: Path, places: dict[str, Path], run: Run) -> None:
    arguments, named = MISTAKES[mistake]
    before = places["table"].read_bytes(), places["image"].read_bytes()
    status, _, err = run(checkpoint, *(argument.format(**places) for argument in arguments))
    assert status == 1
    assert named in err
    assert "Traceback" not in err
    paragraph = err.strip().splitlines()[-1]
    assert named in paragraph
    assert paragraph.endswith(".")
    assert (places["table"].read_bytes(), places["image"].read_bytes()) == before


def test_one_class_only_is_evaluated(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "ward" / "PNEUMONIA").mkdir(parents=True)
    for index, pixels in enumerate(SMOOTH_IMAGES):
        (tmp_path / "ward" / "PNEUMONIA" / f"{index}.png").write_bytes(encode_image(pixels, "PNG"))
    status, out, _ = run(checkpoint, tmp_path / "ward")
    assert status == 0
    assert "undefined" in out
    assert "Use --html or --json" in " ".join(out.split())
    assert "Wrote" not in out


def test_separators_and_byte_order_marks_are_read(
    checkpoint: Path, places: dict[str, Path], tmp_path: Path, run: Run
) -> None:
    shutil.copytree(places["folder"], tmp_path / "copy")
    table = tmp_path / "copy" / "labels.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_text().replace(",", ";").replace("\n", "\r\n").encode())
    assert run(checkpoint, table)[0] == 0
