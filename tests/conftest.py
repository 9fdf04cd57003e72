import gc
import os
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it at import
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers share the cores

from helpers.commands import Compose, read_metrics, sweep
from helpers.configurations import run_composer

from pneumo.data.phantoms import write_phantoms

_COUNTER = count()


def pytest_collection_finish() -> None:
    """Exclude imported objects from garbage collection, which saves 0.3 seconds per run: each run collects once."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_network(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Prevent access to the network and to the user's caches and data."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.getbasetemp() / "torch" / str(next(_COUNTER))))
    if request.node.get_closest_marker("real") is None:
        monkeypatch.delenv("PNEUMO_DATA_ROOT", raising=False)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in the layout of the real data; each split has a file whose name is not UTF-8."""
    root = tmp_path_factory.mktemp("phantoms") / "chest_xray"
    write_phantoms(root, seed=0, train=64, val=16, test=32)
    if sys.platform == "linux":  # other systems reject such names
        for split in filter(Path.is_dir, root.iterdir()):
            last = max((split / "PNEUMONIA").iterdir())
            last.rename(last.with_name(f"{last.stem}_\udce9{last.suffix}"))
    return root


@pytest.fixture(scope="session")
def twelve(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """The folder of a sweep over the study's twelve configurations, run in one process."""
    outputs = tmp_path_factory.mktemp("twelve")
    done = sweep(outputs, phantoms)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(read_metrics(outputs / "sweep" / "study")) == 12
    return outputs / "sweep" / "study"


@pytest.fixture
def compose_run(tmp_path: Path, phantoms: Path) -> Iterator[Compose]:
    """Compose a run in a temporary folder, by default without figures."""
    with run_composer(tmp_path, phantoms) as compose:
        yield compose


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """The folder of a finished run with all its files; tests must not change it."""
    from pneumo.training.run import run  # here, since xdist's controller does not need PyTorch

    folder = tmp_path_factory.mktemp("finished")
    with run_composer(folder, phantoms) as compose:
        run(compose("optimizer=adam", "trainer.max_epochs=2", "figures=true"))
    return folder / "run"
