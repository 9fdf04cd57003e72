import logging
from io import StringIO
from pathlib import Path

import pytest
import rich
from helpers.commands import Compose
from hydra.errors import CompactHydraException
from rich.console import Console

from pneumo.config import console
from pneumo.config.console import ConsoleHandler, describe_resume, require_launcher, user_errors
from pneumo.errors import ConfigError, DataError


def test_a_user_error_becomes_one_paragraph_at_any_depth_of_the_causes() -> None:
    error = RuntimeError("while building")
    error.__cause__ = ConfigError("seed=-1 must be more.")
    with pytest.raises(CompactHydraException, match=r"^seed=-1 must be more\.$"), user_errors():
        raise error


def test_only_user_errors_of_sweeps_are_printed_by_hydra(
    compose_run: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    compose_run("hydra.mode=MULTIRUN")
    with pytest.raises(CompactHydraException, match=r"^seed=-1 must be more\.$"), user_errors():
        raise ConfigError("seed=-1 must be more.")
    assert capsys.readouterr().err == ""
    compose_run("hydra.mode=RUN")
    with pytest.raises(SystemExit, match=r"^1$"), user_errors():
        raise ConfigError("seed=-1 must be more.")
    assert capsys.readouterr().err == "seed=-1 must be more.\n"


def test_a_user_error_of_a_worker_process_loses_the_worker_traceback() -> None:
    text = "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File ...\n"
    with pytest.raises(CompactHydraException, match=r"^a\.jpeg: cannot be read\.$"), user_errors():
        raise DataError(text + "pneumo.errors.DataError: a.jpeg: cannot be read.\n")


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), user_errors():
        raise ZeroDivisionError


def test_lines_are_not_wrapped_or_marked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    out = StringIO()
    monkeypatch.setattr(rich, "get_console", lambda: Console(file=out, width=20))
    record = logging.makeLogRecord({"msg": "[bold]" + "x" * 40, "levelno": logging.WARNING})
    ConsoleHandler().handle(record)
    assert out.getvalue() == "[bold]" + "x" * 40 + "\n"


def test_a_launcher_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "find_spec", lambda name: None)
    require_launcher(["sweep.py", "launcher=local"])
    install = r"not installed: pip install 'pneumo\[ray\]', .* '\.\[ray\]'\. launcher=local"
    with pytest.raises(SystemExit, match=install):
        require_launcher(["sweep.py", "launcher=ray"])


def test_the_terminal_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    out = StringIO()
    monkeypatch.setattr(rich, "get_console", lambda: Console(file=out))
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        record = logging.LogRecord(
            "name", logging.ERROR, "", 0, "FAILED", (), (type(error), error, error.__traceback__)
        )
    ConsoleHandler().handle(record)
    assert out.getvalue() == "FAILED\n"


def test_an_interrupt_outside_of_training_logs_one_line(
    compose_run: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compose_run(f"hydra.run.dir={tmp_path}", "+hydra.mode=RUN", f"hydra.runtime.output_dir={tmp_path}")
    with pytest.raises(SystemExit) as stop, user_errors():
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert "No checkpoint was written yet" in caplog.text


@pytest.mark.parametrize("sweep", [False, True])
def test_only_an_existing_checkpoint_is_named_after_an_interrupt(
    sweep: bool, compose_run: Compose, tmp_path: Path
) -> None:
    compose_run(config="sweep" if sweep else "train")
    last = tmp_path / "my runs" / "checkpoints" / "last.ckpt"
    assert "No checkpoint was written yet" in describe_resume(last)
    assert str(last) not in describe_resume(last)
    last.parent.mkdir(parents=True)
    last.touch()
    instructions = describe_resume(last)
    assert (f"""python train.py 'ckpt_path="{last}"'""" in instructions) != sweep
    assert (f"The same command continues from {last}" in instructions) == sweep
