import errno
import multiprocessing
import re
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from filelock import FileLock
from helpers.commands import Compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pneumo.common.text import quote_value
from pneumo.config.output_folder import CheckOutputFolder, is_first_process, run_lock
from pneumo.errors import ConfigError


def hold(folder: Path, held: Event) -> None:
    with run_lock(folder):
        held.set()
        multiprocessing.Event().wait()


def test_a_second_process_is_rejected_until_the_first_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()
    first = context.Process(target=hold, args=(tmp_path / "run", held), daemon=True)
    first.start()
    assert held.wait(30)
    with pytest.raises(ConfigError, match=r"training in .*run, .*hydra\.run\.dir=FOLDER"), run_lock(tmp_path / "run"):
        pass
    first.kill()
    first.join()
    with run_lock(tmp_path / "run"), run_lock(tmp_path / "run"):  # reentrant within a process
        pass


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")])
def test_a_file_system_without_locks_causes_a_warning(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with run_lock(tmp_path / "run"):
        assert f"run cannot be locked ({error})" in caplog.text


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0", "SLURM_PROCID": "3"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "1"}, False),
    ],
)
def test_only_the_process_of_rank_zero_locks(
    environment: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", environment)
    assert is_first_process() == first


@pytest.mark.parametrize("name", ["é", "\udce9"])
def test_the_name_of_an_output_folder_must_be_utf8(
    name: str, tmp_path: Path, compose_run: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    task = compose_run(f"hydra.run.dir={quote_value(str(tmp_path / name))}")
    cfg = OmegaConf.merge(HydraConfig.instance().cfg, task)
    assert isinstance(cfg, DictConfig)
    if name == "é":
        CheckOutputFolder().on_run_start(cfg)
    else:
        with pytest.raises(SystemExit, match="1"):
            CheckOutputFolder().on_run_start(cfg)
        assert re.search(r"not valid UTF-8.*paths\.output_dir=FOLDER", capsys.readouterr().err)


@pytest.mark.parametrize("start", ["on_run_start", "on_multirun_start"])
def test_a_search_is_rejected_outside_of_a_sweep(
    start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {"run": {"dir": str(tmp_path / "run")}, "sweep": {"dir": str(tmp_path / "sweep")}}
    config = OmegaConf.create({"hydra": folders, "sweep": {"trials": 20}})
    with pytest.raises(SystemExit, match="1"):
        getattr(CheckOutputFolder(), start)(config)
    assert re.search(r"sweep\.trials=20 starts a search.*sweep\.py -m", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("override", ["+sweep.name=x", "++launcher.jobs=2", "+launcher=joblib", "~sweep"])
def test_a_sweep_setting_is_rejected_in_a_single_run(
    override: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hydra = {"run": {"dir": str(tmp_path / "run")}, "overrides": {"task": [override]}}
    with pytest.raises(SystemExit, match="1"):
        CheckOutputFolder().on_run_start(OmegaConf.create({"hydra": hydra}))
    assert capsys.readouterr().err.startswith(f"{override} would have no effect")


@pytest.mark.parametrize("override", ["loss.balance=text", "paths.output_dir=''", "choices=null", "data.seed=${x}"])
def test_an_invalid_configuration_exits_before_the_output_folder_is_created(
    override: str, tmp_path: Path, compose_run: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    task = compose_run(f"hydra.run.dir={tmp_path / 'created'}", override)
    cfg = OmegaConf.merge(HydraConfig.instance().cfg, task)
    assert isinstance(cfg, DictConfig)
    with pytest.raises(SystemExit, match="1"):
        CheckOutputFolder().on_run_start(cfg)
    assert capsys.readouterr().err.startswith(override.partition("=")[0])
    assert not (tmp_path / "created").exists()
