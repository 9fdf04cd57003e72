"""The two scripts, run in this process."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import Script, Sweep, script_runner


@pytest.fixture
def run_script() -> Iterator[Script]:
    """Run train.py or sweep.py in this process and return its status."""
    with script_runner() as script:
        yield script


def sweep_into(outputs: Path, phantoms: Path, script: Script) -> Sweep:
    """Return a function that runs sweep.py on the small phantoms and returns its status."""
    fixed = [f"data.root={phantoms}", f"paths.output_dir={outputs}", "data.image_size=32", "data.batch_size=16"]
    fixed += ["data.num_workers=0", "trainer=cpu", "epochs=2", "figures=false"]

    def run(*arguments: str) -> int:
        many = [] if "hydra.mode=RUN" in arguments else ["-m"]
        return script("sweep.py", *many, *fixed, *arguments)

    return run


@pytest.fixture
def sweep(tmp_path: Path, phantoms: Path, run_script: Script) -> Sweep:
    """Run sweep.py into outputs/ of the test's folder."""
    return sweep_into(tmp_path / "outputs", phantoms, run_script)


@pytest.fixture(scope="session")
def one_job(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """The outputs of a finished sweep of one job; tests must not modify them."""
    outputs = tmp_path_factory.mktemp("one_job") / "outputs"
    with script_runner() as script:
        assert sweep_into(outputs, phantoms, script)("model=xraychestnet", "optimizer=sgd") == 0
    return outputs


@pytest.fixture
def one_job_done(one_job: Path, tmp_path: Path) -> None:
    """A finished sweep of one job in outputs/ of the test's folder."""
    shutil.copytree(one_job, tmp_path / "outputs")
