import socket
import webbrowser
from pathlib import Path

import pytest
from helpers.checkpoints import write_checkpoint
from helpers.commands import Run, command_runner

from pneumo.inference.serve import server


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best.ckpt")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner("serve", monkeypatch, capsys)


def test_a_port_in_use_is_an_error_before_the_network_is_loaded(tmp_path: Path, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        status, out, err = run(tmp_path / "no.ckpt", "--port", port)
    assert (status, out) == (1, "")
    assert f"--host 127.0.0.1 --port {port} (Address already in use)" in err
    assert "--port 0" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "65536"], "--port 65536 is out of range"),
        (["--port", "-1"], "--port -1 is out of range"),
        (["--host", "256.0.0.1", "--port", "0"], "--host 256.0.0.1"),
        (["--port", "0"], "no.ckpt is not a file"),
        (["--port", "0", "--device", "tpu"], "--device tpu"),
    ],
)
def test_an_error_prints_one_paragraph(
    arguments: list[str], message: str, best: Path, tmp_path: Path, run: Run
) -> None:
    status, out, err = run(best if "tpu" in arguments else tmp_path / "no.ckpt", *arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_missing_packages_are_an_error(best: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: None if name == "uvicorn" else object())
    status, _, err = run(best)
    assert status == 1
    assert "pip install 'pneumo[serve]'" in err


HOSTS = [("127.0.0.1", False), ("localhost", False), ("127.0.0.2", False), ("::1", False), ("0.0.0.0", True)]


@pytest.mark.parametrize(("host", "public"), HOSTS)
def test_a_public_host_is_a_warning(
    host: str, public: bool, best: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = []
    monkeypatch.setattr(server, "_serve", lambda network, host, listener: served.append(listener.getsockname()[1]))
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    status, out, err = run(best, "--host", host, "--port", 0, "--open")
    assert status == 0
    assert ("without a password" in err) == public
    address = f"http://{f'[{host}]' if ':' in host else host}:{served[0]}/"
    assert opened == [address]
    assert address in out
