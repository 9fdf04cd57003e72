"""Every command and every Python example of the README and the documentation, run as printed.

They run in a copy of the scripts with small default settings, and with phantoms in place of the real data.
"""

import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import ROOT
from helpers.dicom_files import dicom
from helpers.documents import PAGES, read_examples, shrink_configuration
from helpers.forked_commands import ForkedCommands
from PIL import Image

from pneumo.data.phantoms import write_phantoms

COMMAND = "from pneumo.cli import main\n\nmain()\n"
CLASSES = {"NORMAL": "HEALTHY", "PNEUMONIA": "SICK"}


def write_inputs(folder: Path) -> None:
    """Write the datasets, images and DICOM files that the pages mention."""
    data = folder / "data" / "chest_xray"
    write_phantoms(data, seed=0, train=64, val=16, test=32)
    shutil.copytree(data, folder / "archive (1)")
    for split in ("train", "val", "test"):
        for name, other in CLASSES.items():
            shutil.copytree(data / split / name, folder / "scans_by_class" / split / other)
    shutil.copytree(data / "test", folder / "other_hospital")
    first = min((data / "test" / "PNEUMONIA").iterdir())
    for name in ("scans", "more"):
        (folder / name).mkdir()
    write_tables(folder, data / "train")
    shutil.copy(first, folder / "image.jpeg")
    with Image.open(first) as image:
        content = dicom(np.asarray(image.convert("L")))
    for name in ("a.dcm", "image.dcm", "more/b.dcm"):
        (folder / name).write_bytes(content)


def write_tables(folder: Path, source: Path) -> None:
    """Copy images to scans/, and write a table of them all and one of each site."""
    rows = []
    for label in CLASSES:
        for number, path in enumerate(sorted((source / label).iterdir())):
            shutil.copy(path, folder / "scans")
            columns = ("AB"[number % 2], ("PA", "AP")[number % 3 == 0], "FM"[number % 2], str(20 + number))
            rows.append([path.name, label, *columns])
    tables = {"labels": ("", rows), **{f"site_{s.lower()}": ("scans/", [r for r in rows if r[2] == s]) for s in "AB"}}
    for name, (prefix, lines) in tables.items():
        text = [["file", "label", "site", "view", "sex", "age"], *([prefix + file, *rest] for file, *rest in lines)]
        (folder / f"{name}.csv").write_text("".join(",".join(line) + "\n" for line in text), encoding="utf-8")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts, configuration, inputs and two finished runs, as they are before the first command of a page."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in ("train.py", "sweep.py"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "conf", folder / "conf")
    shrink_configuration(folder / "conf")
    (folder / "pneumo").write_text(COMMAND, encoding="utf-8")
    write_inputs(folder)
    with ForkedCommands(tmp_path_factory.mktemp("printed"), folder) as forks:
        done = forks.run("sweep.py", "-m", "model=xraychestnet", "optimizer=adam,sgd", "sweep.name=example")
    assert done.returncode == 0, done.stdout + done.stderr
    example = folder / "outputs" / "sweep" / "example"
    for name, run in (("RUN", "adam"), ("RUN_A", "adam"), ("RUN_B", "sgd")):
        shutil.copytree(example / f"xraychestnet-{run}-s0", folder / name)
    shutil.copy(folder / "RUN" / "checkpoints" / "best.ckpt", folder)
    shutil.copy(folder / "RUN_B" / "checkpoints" / "best.ckpt", folder / "other.ckpt")
    return folder


def serve_until_ready(folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a server until it prints its address, then interrupt it."""
    monkeypatch.setenv("BROWSER", "true")  # the command, which ignores the address
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT
    known = {"pneumo": [sys.executable, "pneumo"], "tensorboard": [sys.executable, "-m", "tensorboard.main"]}
    arguments = [*known[command[0]], *command[1:]]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, cwd=folder, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert any("http://" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def check_installation(command: list[str]) -> None:
    """Check that a `make` target or an extra exists; installing again would need the network."""
    if command[0] == "make":
        target = next(argument for argument in command[1:] if "=" not in argument)
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target
    elif command[0] == "pip":
        extras = re.findall(r"\[(\w+)\]", command[-1])
        assert set(extras) <= set(metadata("pneumo").get_all("Provides-Extra") or ())
    else:
        assert command == ["source", ".venv/bin/activate"]


def run_command(forks: ForkedCommands, folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one command as printed and check that it succeeds."""
    if command[0] in ("make", "pip", "source"):
        check_installation(command)
    elif command[0] == "tensorboard" or command[:2] == ["pneumo", "serve"]:
        serve_until_ready(folder, command, monkeypatch)
    else:
        for path in filter(re.compile(r"outputs/sweep/\w+").fullmatch, command):
            if not (folder / path).exists():  # a sweep that no command of this page has run
                shutil.copytree(folder / "outputs" / "sweep" / "example", folder / path)
        done = forks.run(*(command[1:] if command[0] == "python" else command))
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def run_code(forks: ForkedCommands, folder: Path, code: str) -> None:
    """Run a Python example; an entry of the metric registry gets the names of its module."""
    if "Metric(" in code:
        code = f"from pneumo.metrics import definitions\n\nglobals().update(vars(definitions))\n{code}"
    (folder / "example.py").write_text(code, encoding="utf-8")
    done = forks.run("example.py")
    assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES)
def test_examples_run_as_printed(page: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkout"
    shutil.copytree(prepared, folder)
    with ForkedCommands(tmp_path, folder) as forks:
        for example in read_examples(page):
            if example.language == "bash":
                for command in example.commands:
                    run_command(forks, folder, command, monkeypatch)
            elif example.language == "python":
                run_code(forks, folder, example.text)
            else:
                assert example.language == "mermaid"
