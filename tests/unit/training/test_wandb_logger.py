import io
import os
from pathlib import Path

import pytest
from helpers.run_files import RESULTS
from helpers.setups import make_setup
from helpers.wandb_files import read_offline_runs
from PIL import Image

from pneumo.errors import ConfigError
from pneumo.training.tracking import final_metrics
from pneumo.training.wandb_logger import WandbRunLogger

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_runs_of_one_process_are_separate_and_a_resumed_run_keeps_its_id(tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.new("L", (8, 8)).save(image, "png")

    def start(folder: str) -> WandbRunLogger:
        logger = WandbRunLogger(str(tmp_path / folder), "study", folder, str(tmp_path / "outputs"))
        logger.log_setup(make_setup())
        return logger

    open_run, stopped = start("open"), start("stopped")
    stopped.log_metrics({"val/loss": 0.5, "epoch": 0}, 99)
    stopped.finalize("failed")
    resumed = start("stopped")
    resumed.log_metrics({"val/loss": 0.25, "epoch": 1}, 99)
    resumed.log_images({"test/roc": image.getvalue()}, 2)
    resumed.finalize("success")
    resumed.log_results(RESULTS, make_setup(), 2)
    resumed.close(failed=False)
    open_run.close(failed=False)
    assert not list((tmp_path / "stopped").rglob("*.wandb"))
    runs = read_offline_runs(tmp_path / "outputs")
    assert sorted(run.run_id for run in runs) == sorted([open_run.run_id, stopped.run_id, stopped.run_id])
    failed, finished = sorted((run for run in runs if run.run_id == stopped.run_id), key=lambda run: -run.exit_code)
    assert (failed.exit_code, finished.exit_code) == (1, 0)
    assert (finished.name, finished.project) == ("stopped", "study")
    assert finished.config.items() >= make_setup().nested.items()
    assert [(row["epoch"], row["val/loss"]) for row in failed.history] == [(1, 0.5)]
    assert [(row["epoch"], row.get("val/loss")) for row in finished.history] == [(2, 0.25), (2, None)]
    assert finished.history[-1]["test/roc/format"] == "png"
    assert {name: finished.summary[name] for name in final_metrics(RESULTS)} == final_metrics(RESULTS)
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


def test_uploading_without_an_account_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"logger\.wandb cannot log to the server \("):
        WandbRunLogger(str(tmp_path), "study", "name", str(tmp_path), "online").log_setup(make_setup())
