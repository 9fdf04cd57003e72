"""The study's sweep on real launchers with small images: results equal those of a single process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import ROOT, read_metrics, sweep

FOUR = ("model=xraychestnet,googlenet", "optimizer=sgd,adagrad")  # of the twelve, since each job imports PyTorch

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def script(name: str, verb: str, **variables: str) -> str:
    """Run a command of a cluster's script outside the sweep's folder, and return its output."""
    environment = {**os.environ, "RAY_BIN": str(Path(sys.executable).with_name("ray")), **variables}
    command = [str(ROOT / "tests" / "engines" / f"{name}-local.sh"), verb]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd="/").stdout


def check(folder: Path, twelve: Path, done: subprocess.CompletedProcess[str], jobs: int) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{jobs} jobs: {jobs} done, 0 skipped, 0 failed" in done.stdout
    assert "googlenet-adagrad-s0 done" in done.stdout
    results, reference = read_metrics(folder / "sweep" / "study"), read_metrics(twelve)
    assert len(results) == jobs
    assert results == {name: reference[name] for name in results}


def check_board(folder: Path, twelve: Path) -> None:
    boards = [(path / "leaderboard.md").read_text().splitlines() for path in (folder, twelve)]
    table, reference = ([cells.split("|") for cells in board if "|" in cells] for board in boards)
    time = [title.strip() for title in reference[0]].index("training time")
    for row in (*table, *reference):
        row.pop(time)
    assert table == reference


def test_joblib(tmp_path: Path, twelve: Path, phantoms: Path) -> None:
    check(tmp_path, twelve, sweep(tmp_path, phantoms, "launcher=joblib", "launcher.jobs=2"), 12)
    check_board(tmp_path / "sweep" / "study", twelve)


@pytest.fixture
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Ray cluster of two nodes; yields the environment variables of a driver."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    folder = {"RAY_LOCAL_DIR": f"/tmp/ray-test-{os.getpid()}"}  # short, since paths of sockets are limited
    script("ray", "start", **folder)
    try:
        lines = script("ray", "env", **folder).replace("export ", "").split()
        yield dict(line.replace("'", "").split("=", 1) for line in lines)
    finally:
        script("ray", "stop", **folder)


def test_ray_on_two_nodes(tmp_path: Path, twelve: Path, phantoms: Path, ray: dict[str, str]) -> None:
    address = f"launcher.address={ray['RAY_LOCAL_ADDRESS']}"
    check(tmp_path, twelve, sweep(tmp_path, phantoms, "launcher=ray", address, "launcher.gpus=0", *FOUR, **ray), 4)


@pytest.fixture
def slurm() -> Iterator[None]:
    """A Slurm cluster of one node, this machine."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    if os.geteuid() != 0:
        pytest.skip("only root can start Slurm")
    script("slurm", "start")
    try:
        yield
    finally:
        script("slurm", "stop")


@pytest.mark.usefixtures("slurm")
def test_slurm(tmp_path: Path, twelve: Path, phantoms: Path) -> None:
    options = ("launcher=slurm", "launcher.cpus=1", "launcher.minutes=20", "launcher.partition=main")
    check(tmp_path, twelve, sweep(tmp_path, phantoms, *options, *FOUR), 4)
