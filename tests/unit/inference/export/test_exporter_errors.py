import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from pneumo.errors import ConfigError, HardwareError
from pneumo.inference.backend import Images, Scores, SettingStyle, as_argument, as_flag
from pneumo.inference.export import exporter
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.onnx_backend import RULES, SHA256, OnnxNetwork, add_checksum
from pneumo.inference.predictor import open_network


@pytest.mark.usefixtures("written")
def test_a_file_with_different_predictions_is_not_written(
    checkpoint: Path,
    tmp_path: Path,
    export: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Wrong(OnnxNetwork):
        def score(self, images: Images) -> Scores:
            probability, ood_score = super().score(images)
            return probability + np.float32(2e-4), ood_score

    monkeypatch.setitem(FORMATS, ".onnx", replace(FORMATS[".onnx"], open=Wrong))
    assert export(checkpoint, "--output", tmp_path / "network.onnx") == 1
    assert "differs from its checkpoint: probabilities by up to 0.0002 (limit 0.0001)" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "zeros", "text", "empty"])
def test_a_damaged_file_is_a_config_error(
    damage: str, exported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content, path = exported.read_bytes(), tmp_path / "network.onnx"
    contents = {"cut": content[: len(content) // 2], "zeros": bytes(1000), "text": b"no network", "empty": b""}
    path.write_bytes(contents[damage])
    with pytest.raises(ConfigError, match="network") as error:
        open_network(path)
    assert len(str(error.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("changed", ["weight", "rules", "order"])
def test_a_file_altered_after_its_export_is_rejected(changed: str, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "altered.onnx"
    if changed == "weight":
        content = bytearray(exported.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        model = onnx.load(exported)
        rules = next(entry for entry in model.metadata_props if entry.key == RULES)
        if changed == "rules":
            rules.value = rules.value.replace('"threshold": 0.4', '"threshold": 0.9')
        else:  # the same content, in another order
            model.metadata_props.append(model.metadata_props.pop(0))
        path.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match=r"altered\.onnx .* pneumo_sha256"):
        open_network(path)


def rewrite(exported: Path, path: Path, checksum: bool, **changes: object) -> Path:
    """Write a copy of an exported network with other rules."""
    model = onnx.load(exported)
    metadata = {entry.key: entry.value for entry in model.metadata_props if entry.key != SHA256}
    metadata[RULES] = json.dumps({**json.loads(metadata[RULES]), **changes})
    onnx.helper.set_model_props(model, metadata)
    content = model.SerializeToString()
    path.write_bytes(add_checksum(content) if checksum else content)
    return path


@pytest.mark.parametrize(("name", "value"), [("threshold", float("nan")), ("image_size", 64), ("classes", list("ABC"))])
@pytest.mark.parametrize("checksum", [True, False])
def test_rules_that_do_not_match_the_network_are_rejected(
    name: str, value: object, checksum: bool, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"other\.onnx") as error:
        open_network(rewrite(exported, tmp_path / "other.onnx", checksum, **{name: value}))
    assert "\n" not in str(error.value)


def test_an_export_without_a_checksum_opens_with_one_warning(
    exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    early = rewrite(exported, tmp_path / "early.onnx", checksum=False)
    assert open_network(early).rules == open_network(exported).rules
    open_network(early)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "early.onnx has no SHA-256" in caplog.text


def test_an_onnx_file_without_metadata_is_rejected(exported: Path, tmp_path: Path) -> None:
    model, path = onnx.load(exported), tmp_path / "other.onnx"
    del model.metadata_props[:]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match=r"other\.onnx"):
        open_network(path)


def test_a_missing_onnxruntime_is_an_error_with_the_package_to_install(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'pneumo\[export\]'"):
        open_network(exported)


@pytest.mark.parametrize(
    ("style", "cuda", "cpu"),
    [(as_argument, "device='cuda'", "device='cpu'"), (as_flag, "--device cuda", "--device cpu")],
)
@pytest.mark.parametrize("has_cuda_build", [True, False])
def test_a_missing_gpu_is_an_error_that_names_the_settings(
    style: SettingStyle, cuda: str, cpu: str, has_cuda_build: bool, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Session(onnxruntime.InferenceSession):  # type: ignore[misc] # onnxruntime ships no types
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    providers = ["CUDAExecutionProvider"] if has_cuda_build else []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*providers, "CPUExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, **other: Session(path, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(HardwareError) as error:
        open_network(exported, "cuda", style)
    assert str(error.value).startswith(f"{cuda} needs a GPU, and onnxruntime ")
    assert f". Use {cpu}, or install" in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "network.h5"], "must end in .onnx"),
        (["--output", "small.onnx", "--int8"], "--data ROOT"),
        (["--output", "small.pt2", "--int8", "--data", "."], "--int8 requires the format ONNX"),
        (["--output", "x.onnx", "--data", "nowhere"], "--data nowhere does not exist"),
        (["--output", "folder.onnx"], "is a folder"),
        (["--output", "file/network.onnx"], "cannot be written"),
    ],
)
def test_invalid_arguments_are_rejected_before_the_export(
    options: list[str],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    export: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.onnx").mkdir()
    Path("file").touch()
    assert export(checkpoint, *options) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1


def test_a_damaged_image_of_the_data_set_is_an_error_without_traceback(
    checkpoint: Path, phantoms: Path, tmp_path: Path, export: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = min((shutil.copytree(phantoms, tmp_path / "data") / "train" / "NORMAL").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert export(checkpoint, "--output", tmp_path / "network.onnx", "--data", tmp_path / "data") == 1
    error = capsys.readouterr().err
    assert error.startswith(str(damaged))
    assert "Traceback" not in error
    assert not (tmp_path / "network.onnx").exists()


def test_a_file_that_is_not_a_checkpoint_is_rejected(
    exported: Path, tmp_path: Path, export: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(exported, "--output", tmp_path / "again.onnx") == 1
    assert "cannot be read as a checkpoint" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_listed(
    checkpoint: Path,
    tmp_path: Path,
    export: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(exporter, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert export(checkpoint, "--output", tmp_path / "network.onnx") == 1
    assert "packages that are not installed: onnxscript." in capsys.readouterr().err
