from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from pneumo.errors import ConfigError, WeightsError
from pneumo.models.backbones import build_backbone
from pneumo.models.registry import create


def state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    tensors: dict[str, Tensor] = torchvision.models.resnet18().state_dict()
    return tensors


def body(weights: str) -> dict[str, Tensor]:
    backbone, _ = build_backbone("torchvision/resnet18", weights, None, image_size=32, classes=2)
    return backbone.network.state_dict()


def save_wrong(path: Path) -> None:
    """Save what no training script would; the file's name says which."""
    cyclic: dict[str, object] = {}
    cyclic["state_dict"] = cyclic["model"] = cyclic
    deep: dict[str, object] = {"w": torch.zeros(1)}
    for _ in range(200):
        deep = {"a": deep}
    layer = nn.Linear(2, 2)
    contents = {
        "list": [1, 2],
        "two": {"encoder": {"w": torch.zeros(1)}, "decoder": {"w": torch.zeros(1)}},
        "other": layer.state_dict(),
        "head": {f"fc.{name}": tensor for name, tensor in layer.state_dict().items()},
        "code": layer,  # a pickled object could run anything
        "numbers": {0: torch.zeros(1), 1: torch.zeros(1)},
        "empty": {},
        "unnamed": {"": torch.zeros(1)},
        "control": {"a\x1b[31m\nb": torch.zeros(1)},
        "deep": deep,
        "cyclic": cyclic,
    }
    first = {"shape": torch.zeros(64, 1, 7, 7), "complex": torch.zeros(64, 3, 7, 7, dtype=torch.complex64)}
    first["nan"] = torch.full((64, 3, 7, 7), torch.nan)
    if path.stem == "text":
        path.write_text("no weights")
    elif path.stem in first:
        torch.save({**state(), "conv1.weight": first[path.stem]}, path)
    elif path.stem in contents:
        torch.save(contents[path.stem], path)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("{tmp}/missing.pth", "missing.pth does not exist"),
        ("missing.pth.tar", "missing.pth.tar does not exist"),
        ("{tmp}", "is a folder"),
        ("{tmp}/two.pth", r"several state dicts \(encoder, decoder\)"),
        ("{tmp}/text.pth", "cannot be read as weights"),
        ("{tmp}/text.safetensors", "cannot be read as weights"),
        ("{tmp}/list.pth", "holds no state dict"),
        ("{tmp}/other.pth", r"none of the 100 tensors .*2 \(weight, bias\)"),
        ("{tmp}/head.pth", "none of the 100 tensors .*only those of a head"),
        ("{tmp}/shape.pth", r"conv1.weight is \(64, 1, 7, 7\) instead of \(64, 3, 7, 7\)"),
        ("{tmp}/code.pth", "its torch.nn.modules.linear.Linear objects could run code"),
        ("pip:no_such_package", "pip install no-such-package"),
        ("pip:rich", "it holds 0"),
        ("pip:no.such", "no package no.such"),
        ("pip:no.such.deep", "no package no.such.deep"),
        ("pip:os", "no package os"),
        ("pip:__main__", "no package __main__"),
        *((f"pip:{name}", "names no package") for name in ("", "..", ".", "/x", "..a", "a b", " rich", "rich.", "\0")),
        ("long" * 100 + ".pth", "File name too long"),
        ("~nobody-of-that-name/a.pth", "does not exist"),
        ("{tmp}/numbers.pth", "holds no state dict"),
        ("{tmp}/empty.pth", "holds no state dict"),
        ("{tmp}/unnamed.pth", "none of the 100 tensors"),
        ("{tmp}/control.pth", r"\(a\[31m b\)"),
        ("{tmp}/deep.pth", "holds no state dict"),
        ("{tmp}/cyclic.pth", "holds no state dict"),
        ("{tmp}/complex.pth", "complex, sparse or quantized"),
        ("{tmp}/nan.pth", "no finite values"),
        ("IMAGENET_V9", "no published weights of that name"),
    ],
)
def test_weights_that_do_not_serve_are_explained(weights: str, message: str, tmp_path: Path) -> None:
    name = weights.format(tmp=tmp_path)
    if "{tmp}/" in weights:
        save_wrong(Path(name))
    with pytest.raises(WeightsError, match=message) as caught:
        body(name)
    assert str(caught.value).isprintable()


def test_no_code_of_a_package_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "attacking" / "inner").mkdir(parents=True)
    (tmp_path / "attacking" / "__init__.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "attacking" / "inner" / "__init__.py").write_text("raise SystemExit('it ran')")
    torch.save(given := state(), tmp_path / "attacking" / "inner" / "weights.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    for package in ("attacking", "attacking.inner"):
        assert torch.equal(body(f"pip:{package}")["conv1.weight"], given["conv1.weight"])


PROXIES = {"socks": ImportError("no socksio"), "scheme": ValueError("Unknown scheme for proxy URL"), "url": Exception()}


@pytest.mark.parametrize("fault", PROXIES)
def test_whatever_a_proxy_causes_is_explained(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> nn.Module:
        if options["pretrained"]:
            raise PROXIES[fault]
        return create_model("resnet18")

    create_model = timm.create_model
    monkeypatch.setattr(timm, "create_model", fail)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@garbage")
    with pytest.raises(WeightsError, match="a proxy is set by HTTPS_PROXY") as caught:
        build_backbone("timm/resnet18", "DEFAULT", None, image_size=32, classes=2)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "timm/resnet18.nope",
        "timm/resnet18.",
        "timm/resnet18.a1_in1k.x",
        "torchvision/resnet18.x",
        "pneumo/xraychestnet.x",
    ],
)
def test_a_tag_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"model.architecture={name}: "):
        create(name, 32)
