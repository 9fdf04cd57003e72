import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.commands import ROOT

from pneumo.common.streams import LostOutputError, guarded_output
from pneumo.training.resumption import handle_interruptions


@pytest.fixture
def lost(request: pytest.FixtureRequest) -> Iterator[io.TextIOWrapper]:
    """A stream to a full device, or to a pipe whose reader is closed."""
    if request.param == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    yield io.TextIOWrapper(io.FileIO(descriptor, "wb", closefd=False), encoding="ascii", write_through=True)
    os.close(descriptor)


@pytest.fixture
def redirect(lost: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that redirects standard output; a fixture cannot, since pytest redirects it before the test."""

    def apply() -> None:
        monkeypatch.setattr(sys, "stdout", lost)
        monkeypatch.setattr(sys, "__stdout__", lost)

    return apply


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize(("lost", "message"), [("full", "No space left on device"), ("pipe", "")], indirect=["lost"])
def test_lost_output_ends_the_command_once(message: str, redirect: Callable[[], None]) -> None:
    redirect()
    with pytest.raises(LostOutputError) as stop, guarded_output():
        print("a", flush=True)
    assert (message in str(stop.value.code)) if message else stop.value.code == 1
    with guarded_output():
        print("b", flush=True)  # to the null device, so that output during cleanup raises no further error


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("lost", ["full"], indirect=True)
def test_buffered_output_is_flushed_and_its_loss_detected(redirect: Callable[[], None]) -> None:
    redirect()
    with pytest.raises(LostOutputError), guarded_output():
        print("a")


def test_lost_output_is_not_handled_as_a_failed_file_or_job(tmp_path: Path) -> None:
    assert not issubclass(LostOutputError, Exception)
    with pytest.raises(LostOutputError), handle_interruptions(tmp_path / "last.ckpt"):
        raise LostOutputError(1)


def test_standard_output_accepts_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(stream, encoding="ascii"))
    with guarded_output():
        print("é\udce9")
    assert stream.getvalue() == b"\\xe9\\udce9\n"


def test_a_command_without_standard_output_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    with guarded_output():
        print("a")
        assert sys.stdout is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_run_whose_output_is_lost_prints_one_line_or_nothing(tmp_path: Path) -> None:
    small = ["data=synthetic", "data.train=8", "data.val=4", "data.test=4", "data.image_size=32", "trainer=cpu"]
    small += ["data.num_workers=0", "model=xraychestnet", "optimizer=sgd", "epochs=1", f"paths.output_dir={tmp_path}"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "train.py", *small], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
    command = [sys.executable, "sweep.py", "-m", *small]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.slow
def test_a_run_in_an_ascii_locale_writes_and_prints_everything(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    small = ["data=synthetic", "data.train=8", "data.val=4", "data.test=4", "data.image_size=32", "trainer=cpu"]
    small += ["data.num_workers=0", "model=xraychestnet", "epochs=1", f'paths.output_dir="{tmp_path}/q[/y]"']
    environment = {**os.environ, **ascii_only}
    command = [sys.executable, "train.py", *small]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "q[/y]" in done.stdout
    assert len(list(tmp_path.rglob("results.json"))) == 1
