import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pneumo.errors import ConfigError
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.export.writer import write_network
from pneumo.inference.predictor import open_network
from pneumo.inference.torch_backend import CheckpointNetwork


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register a copy of the ONNX format under another name, and return its suffix."""
    own = replace(FORMATS[".onnx"], name="OWN", file="an OWN file", runtime="tests", quantise=None, max_bytes=0)
    monkeypatch.setitem(FORMATS, ".own", own)
    return ".own"


@pytest.mark.usefixtures("written")
def test_a_format_is_added_by_its_entry_alone(
    own: str, checkpoint: Path, exported: Path, tmp_path: Path, export: Callable[..., int]
) -> None:
    path = tmp_path / f"network{own}"
    assert export(checkpoint, "--output", path) == 0
    assert path.read_bytes() == exported.read_bytes()
    assert open_network(path).rules == open_network(exported).rules


def test_messages_list_the_formats(
    own: str, checkpoint: Path, tmp_path: Path, export: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        (["--output", "x.h5"], ".pt2 (for PyTorch) or .own (for tests). Use a name such as --output network.onnx."),
        (
            ["--output", "x.own", "--int8", "--data", "."],
            "--int8 requires the format ONNX, but --output is x.own. Use a file name that ends in .onnx.",
        ),
    ):
        assert export(checkpoint, *options) == 1
        assert message in capsys.readouterr().err
    network = CheckpointNetwork(checkpoint)
    with pytest.raises(ConfigError, match=r"an OWN file can hold at most 0 GB. Use a file name that ends in \.pt2\."):
        write_network(network.module, network.rules, {}, tmp_path / f"network{own}")


def test_a_checkpoint_is_loaded_without_importing_libraries_of_other_formats(checkpoint: Path) -> None:
    code = f"""
import sys
import pneumo.inference.export.formats
print(sorted({{"torch", "onnx", "onnxruntime"}} & set(sys.modules)))
pneumo.load_model({str(checkpoint)!r}, "cpu")
print(sorted({{"onnx", "onnxscript", "onnxruntime"}} & set(sys.modules)))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines() == ["[]", "[]"]
