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


def load_backbone(weights: str) -> dict[str, Tensor]:
    backbone, _ = build_backbone("torchvision/resnet18", weights, None, image_size=32, classes=2)
    return backbone.network.state_dict()


def save_invalid(path: Path) -> None:
    """Save invalid content, selected by the file's name."""
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
        "code": layer,  # a pickled object could run code
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
        ("{tmp}/list.pth", "contains no state dict"),
        ("{tmp}/other.pth", r"none of the 100 tensors .*2 \(weight, bias\)"),
        ("{tmp}/head.pth", "none of the 100 tensors .*only those of a head"),
        ("{tmp}/shape.pth", r"conv1.weight is \(64, 1, 7, 7\) instead of \(64, 3, 7, 7\)"),
        ("{tmp}/code.pth", "its torch.nn.modules.linear.Linear objects could run code"),
        ("pip:no_such_package", "pip install no-such-package"),
        ("pip:rich", "it contains 0"),
        ("pip:no.such", "package no.such is not installed"),
        ("pip:no.such.deep", "package no.such.deep is not installed"),
        ("pip:os", "package os is not installed"),
        ("pip:__main__", "package __main__ is not installed"),
        *(
            (f"pip:{name}", "is not a package name")
            for name in ("", "..", ".", "/x", "..a", "a b", " rich", "rich.", "\0")
        ),
        ("long" * 100 + ".pth", "File name too long"),
        ("~nobody-of-that-name/a.pth", "does not exist"),
        ("{tmp}/numbers.pth", "contains no state dict"),
        ("{tmp}/empty.pth", "contains no state dict"),
        ("{tmp}/unnamed.pth", "none of the 100 tensors"),
        ("{tmp}/control.pth", r"\(a\[31m b\)"),
        ("{tmp}/deep.pth", "contains no state dict"),
        ("{tmp}/cyclic.pth", "contains no state dict"),
        ("{tmp}/complex.pth", "complex, sparse, quantized"),
        ("{tmp}/nan.pth", "non-finite values"),
        ("IMAGENET_V9", "no published weights with this tag"),
    ],
)
def test_errors_of_invalid_weights(weights: str, message: str, tmp_path: Path) -> None:
    name = weights.format(tmp=tmp_path)
    if "{tmp}/" in weights:
        save_invalid(Path(name))
    with pytest.raises(WeightsError, match=message) as caught:
        load_backbone(name)
    assert str(caught.value).isprintable()


def test_code_of_packages_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "attacking" / "inner").mkdir(parents=True)
    (tmp_path / "attacking" / "__init__.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "attacking" / "inner" / "__init__.py").write_text("raise SystemExit('it ran')")
    torch.save(given := state(), tmp_path / "attacking" / "inner" / "weights.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    for package in ("attacking", "attacking.inner"):
        assert torch.equal(load_backbone(f"pip:{package}")["conv1.weight"], given["conv1.weight"])


PROXIES = {"socks": ImportError("no socksio"), "scheme": ValueError("Unknown scheme for proxy URL"), "url": Exception()}


@pytest.mark.parametrize("fault", PROXIES)
def test_proxy_errors_are_reported(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_unknown_tags_are_rejected(name: str) -> None:
    with pytest.raises(ConfigError, match=f"model.architecture={name} has an unknown tag: "):
        create(name, 32)
