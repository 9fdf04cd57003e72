import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.checkpoints import write_checkpoint

from pneumo.errors import ConfigError
from pneumo.inference.torch_backend import CheckpointNetwork
from pneumo.models.classifier import Classifier
from pneumo.training.checkpoints import write_checkpoint as write


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = write_checkpoint(tmp_path_factory.mktemp("restoration") / "best.ckpt")
    return dict(torch.load(path, weights_only=True))


@pytest.mark.parametrize(
    "attack", [{"weights": "pip:attacking.package"}, {"_instantiator": "attacking.run"}, {"weights": "DEFAULT"}]
)
def test_loading_a_checkpoint_neither_imports_nor_downloads(
    attack: dict[str, str], content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "attacking.py").write_text("def run(cls, arguments): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    torch.save({**content, "hyper_parameters": {**content["hyper_parameters"], **attack}}, tmp_path / "a.ckpt")
    for load in (Classifier.load_from_checkpoint, CheckpointNetwork):
        with pytest.raises(ConfigError, match=r"a\.ckpt"):
            load(tmp_path / "a.ckpt")
    assert "attacking" not in sys.modules


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "1 missing"),
        ("unknown", "1 unexpected"),
        ("shape", "1 with another shape or type"),
        ("dtype", "1 with another shape or type"),
        ("size", "with another shape or type"),
        ("architecture", "missing"),
        ("settings", "lack classes"),
        ("no weights", "holds no weights"),
        ("tag", "cannot be loaded"),
    ],
)
def test_mismatched_weights_are_reported(fault: str, message: str, content: dict[str, Any], tmp_path: Path) -> None:
    state, settings = dict(content["state_dict"]), dict(content["hyper_parameters"])
    broken = {**content, "state_dict": state, "hyper_parameters": settings}
    bias = state["head.bias"]
    if fault == "missing":
        del state["head.bias"]
    elif fault == "settings":
        del settings["classes"]
    elif fault == "no weights":
        del broken["state_dict"]
    elif fault in ("unknown", "shape", "dtype"):
        values = {"unknown": bias, "shape": bias[:1], "dtype": bias.long()}
        state["more" if fault == "unknown" else "head.bias"] = values[fault].clone()
    else:
        other = {"size": 512, "architecture": "torchvision/vgg16", "tag": "timm/resnet18.none"}
        settings["image_size" if fault == "size" else "architecture"] = other[fault]
    write(broken, tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match=rf"a\.ckpt cannot be loaded .*{message}|{message} as a classifier") as error:
        Classifier.load_from_checkpoint(tmp_path / "a.ckpt")
    assert "\n" not in str(error.value)


def test_ood_detectors_with_other_channels_are_rejected(content: dict[str, Any], tmp_path: Path) -> None:
    few = {name: tensor[..., :3].clone() for name, tensor in content["outliers"].items()}
    write({**content, "outliers": few}, tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match=r"a\.ckpt .* 3 channels"):
        CheckpointNetwork(tmp_path / "a.ckpt")


def test_half_precision_weights_are_restored(content: dict[str, Any], tmp_path: Path) -> None:
    half = {name: t.bfloat16() if t.is_floating_point() else t for name, t in content["state_dict"].items()}
    write({**content, "state_dict": half}, tmp_path / "a.ckpt")
    restored = Classifier.load_from_checkpoint(tmp_path / "a.ckpt")
    assert restored.head.bias.equal(half["head.bias"].float())


def test_arguments_override_hyperparameters(content: dict[str, Any], tmp_path: Path) -> None:
    write(content, tmp_path / "a.ckpt")
    restored = Classifier.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True, threshold=0.25)
    assert restored.hparams["threshold"] == 0.25
    assert restored.hparams["temperature"] == content["hyper_parameters"]["temperature"]
    assert restored.head.bias.equal(content["state_dict"]["head.bias"])
    with pytest.raises(ConfigError, match="hparams_file"):
        Classifier.load_from_checkpoint(tmp_path / "a.ckpt", hparams_file="hparams.yaml")
