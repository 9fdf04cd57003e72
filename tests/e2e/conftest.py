"""What the tests of whole sweeps share."""

import logging
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import ROOT, Sweep
from hydra.core.hydra_config import HydraConfig


@pytest.fixture
def sweep(tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    """Run sweep.py in this process, on the small phantoms, into outputs/ of the test's folder; give its status."""
    monkeypatch.chdir(ROOT)
    fixed = [f"data.root={phantoms}", f"paths.output_dir={tmp_path / 'outputs'}"]
    fixed += ["data.image_size=32", "data.batch_size=16", "data.num_workers=0", "trainer=cpu", "epochs=2"]
    fixed += ["figures=false"]

    def run(*arguments: str) -> int:
        many = [] if "hydra.mode=RUN" in arguments else ["-m"]
        monkeypatch.setattr(sys, "argv", ["sweep.py", *many, *fixed, *arguments])
        try:
            runpy.run_path("sweep.py", run_name="__main__")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        return 0

    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield run
    for handler in set(root.handlers).difference(handlers):  # which Hydra has set
        handler.close()
    root.handlers = handlers
    root.setLevel(level)
    logging.getLogger("pneumo").setLevel(logging.NOTSET)
    HydraConfig.instance().cfg = None
