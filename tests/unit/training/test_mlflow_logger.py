import logging
from pathlib import Path

import pytest
from helpers.run_files import RESULTS
from helpers.setups import make_setup

from pneumo.errors import ConfigError
from pneumo.training.mlflow_logger import MLFlowRunLogger
from pneumo.training.tracking import final_metrics

pytest.importorskip("mlflow")


@pytest.mark.slow
def test_a_run_is_stored_in_a_database_and_a_resumed_run_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    uri = f"sqlite:///{tmp_path}/outputs/mlflow.db"

    def start(folder: str, overrides: str) -> MLFlowRunLogger:
        logger = MLFlowRunLogger(str(tmp_path / folder), "study", "vgg16-sgd-s0", uri)
        logger.log_setup(make_setup(overrides, yaml="a: 1\n"))
        return logger

    stopped = start("run", "augment=light")
    stopped.log_metrics({"val/loss": 0.5, "lr-Adam/1": 0.1, "epoch": 0}, 99)
    stopped.finalize("failed")
    client = stopped.experiment
    assert client.get_run(stopped.run_id).info.status == "FAILED"

    logger = start("run", "augment=light trainer=cpu")  # parameters cannot be changed
    assert client.get_run(stopped.run_id).info.status == "RUNNING"
    logger.log_metrics({"val/loss": 0.25, "epoch": 1}, 99)
    logger.log_images({"test/roc": b"png", "train/batch": b"other"}, 2)
    logger.finalize("success")
    logger.log_results(RESULTS, make_setup(), 2)
    logger.close(failed=False)
    (run,) = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert (run.info.run_id, run.info.status, run.info.run_name) == (stopped.run_id, "FINISHED", "vgg16-sgd-s0")
    shown = {"model": "vgg16", "lr": "0.1", "overrides": "augment=light", "config/group.setting149": "149"}
    assert run.data.params.items() >= shown.items()
    assert len(run.data.params) == 3 + 150
    assert [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, "val/loss")] == [
        (1, 0.5),
        (2, 0.25),
    ]
    assert {name: run.data.metrics[name] for name in final_metrics(RESULTS)} == final_metrics(RESULTS)
    artifacts = tmp_path / "outputs" / "mlartifacts" / run.info.run_id / "artifacts"
    stored = {path.relative_to(artifacts).as_posix(): path.read_bytes() for path in artifacts.rglob("*.*")}
    assert stored == {"config.yaml": b"a: 1\n", "figures/test/roc.png": b"png", "figures/train/batch.png": b"other"}

    client.delete_run(run.info.run_id)
    assert start("run", "").run_id != stopped.run_id
    assert start("other", "").run_id not in (stopped.run_id, logger.run_id)
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nosuch://x", "sqlite:////proc/none/mlflow.db"])
def test_a_server_that_is_not_available_is_a_user_error(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match=rf"logger\.mlflow cannot log to {uri} \("):
        MLFlowRunLogger(str(tmp_path), "study", "name", uri).log_setup(make_setup())
    assert logging.getLogger("mlflow").level == logging.WARNING
