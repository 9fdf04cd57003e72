import copy
import logging
import re
from collections import OrderedDict
from collections.abc import Callable

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import DenseNet, MNASNet, VisionTransformer

from pneumo.errors import WeightsError
from pneumo.models.registry import create
from pneumo.models.state_dicts import load_state_dict


def network(seed: int = 0, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    layer = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    parts = {"stem": nn.Conv2d(1, 4, 3), "norm": nn.BatchNorm2d(4), "layer": layer, "fc": nn.Linear(4, classes)}
    return nn.Sequential(OrderedDict(parts))


def trained(classes: int = 5) -> dict[str, Tensor]:
    state = network(1, classes).state_dict()
    return {name: tensor + index for index, (name, tensor) in enumerate(state.items())}


def assert_loads(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    found = network()
    head = copy.deepcopy(found.get_submodule("fc").state_dict())
    load_state_dict(found, state, "fc", "model.weights=FILE")
    for name, tensor in found.state_dict().items():
        if name.startswith("fc."):
            assert torch.equal(tensor, head[name.removeprefix("fc.")])
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, expected[name]), name


PREFIXES = ["net.", "resnet.", "encoder.", "_orig_mod.", "model.backbone.", "module._orig_mod.model.", "0.", ""]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("head", ["fc.", "PREFIX.fc.", "model.head.", None])
def test_common_prefixes_are_stripped(prefix: str, head: str | None) -> None:
    given = trained()
    state = {}
    for name, tensor in given.items():
        if not name.startswith("fc."):
            state[prefix + name] = tensor
        elif head is not None:
            state[name.replace("fc.", head.replace("PREFIX.", prefix))] = tensor
    assert_loads(state, given)


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.sampled_from(["stem", "layer", "0", "fc", "module", "a_b"]), max_size=4))
def test_prefixes_that_resemble_layers_are_stripped(parts: list[str]) -> None:
    given = trained()
    assert_loads({".".join([*parts, name]): tensor for name, tensor in given.items()}, given)


def test_wrappers_inside_a_network_are_ignored() -> None:
    given = trained()
    state = {
        name.replace("layer.", "layer._checkpoint_wrapped_module.").replace("norm.", "norm._orig_mod."): tensor
        for name, tensor in given.items()
    }
    assert any("_orig_mod" in name for name in state)
    assert_loads(state, given)


@pytest.mark.parametrize("names", ["same", "other"])
def test_counters_may_be_missing(names: str) -> None:
    given = trained()
    state = {name: tensor for name, tensor in given.items() if not name.endswith("num_batches_tracked")}
    other = {f"_{name.replace('.', '_', 1) if names == 'other' else name}": tensor for name, tensor in state.items()}
    assert_loads(state if names == "same" else other, given)


def test_missing_and_mismatched_tensors_are_reported() -> None:
    state = trained()
    del state["stem.weight"], state["norm.running_var"]
    with pytest.raises(WeightsError, match=r"2 are missing \(stem.weight, norm.running_var\)"):
        assert_loads(state, state)
    state["stem.weight"], state["stem.bias"] = torch.zeros(4, 3, 3, 3), torch.zeros(5)
    message = (
        r"1 are missing \(norm.running_var\) and 2 have another shape "
        r"\(stem.weight is \(4, 3, 3, 3\) instead of \(4, 1, 3, 3\), stem.bias is \(5,\) instead of \(4,\)\)"
    )
    with pytest.raises(WeightsError, match=message):
        assert_loads(state, state)


def test_weights_of_a_deeper_network_are_rejected() -> None:
    deeper = trained() | {"layer.2.weight": torch.zeros(4, 4, 3, 3), "layer.3.running_mean": torch.zeros(4)}
    with pytest.raises(WeightsError, match=r"additional weights in modules of the network: 1 \(layer.2.weight\)"):
        assert_loads(deeper, {})


def renamed(state: dict[str, Tensor], leaves: dict[str, str]) -> dict[str, Tensor]:
    """Rename all tensors to names that match no network, and rename `leaves`."""
    found = {}
    for index, (name, tensor) in enumerate(state.items()):
        leaf = name.rpartition(".")[2]
        found[f"part{index}.{leaves.get(leaf, leaf)}"] = tensor
    return found


@pytest.mark.parametrize(("leaves", "level"), [({}, logging.INFO), ({"weight": "kernel"}, logging.WARNING)])
@pytest.mark.parametrize("head", ["same", "other", "none"])
def test_matching_by_order_is_logged(
    leaves: dict[str, str], level: int, head: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = trained(classes=3 if head == "same" else 7)
    state = {name: tensor for name, tensor in given.items() if head != "none" or not name.startswith("fc.")}
    with caplog.at_level(logging.INFO):
        assert_loads(renamed(state, leaves), given)
    [record] = caplog.records
    assert record.levelno == level
    assert "by order and shape" in record.message
    assert "part0." in record.message
    assert "as stem.weight" in record.message


def test_matching_by_order_is_rejected_if_names_contradict() -> None:
    swapped = {"running_mean": "running_var", "running_var": "running_mean"}
    with pytest.raises(WeightsError, match="none of the 12 tensors"):
        assert_loads(renamed(trained(), swapped), {})


def test_unused_tensors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    given = trained()
    state = {f"model.{name}": tensor for name, tensor in given.items()}
    state |= {"model.aux.weight": torch.zeros(1), "loss.weight": torch.zeros(1)}
    with caplog.at_level(logging.INFO):
        assert_loads(state, given)
    assert caplog.messages == [
        "Loaded model.weights=FILE: matched by name after the prefix 'model.'; "
        "unused tensors: 2 (loss.weight, aux.weight)."
    ]


def test_second_copy_of_the_network_causes_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    given = trained()
    state = {f"query.{name}": tensor for name, tensor in given.items()}
    state |= {f"key.{name}": tensor * 2 for name, tensor in given.items()}
    assert_loads(state, given)
    assert "although it also matches after 'key.'" in caplog.text


def small_vit() -> nn.Module:
    vit: nn.Module = VisionTransformer(image_size=8, patch_size=4, num_layers=1, num_heads=1, hidden_dim=4, mlp_dim=8)
    return vit


LAYOUTS: dict[str, tuple[Callable[[], nn.Module], Callable[[str], str]]] = {
    "densenet": (
        lambda: DenseNet(2, (2, 1), 4, num_classes=3),
        lambda name: re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name),
    ),
    "vit": (
        small_vit,
        lambda name: name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."),
    ),
    "mnasnet": (lambda: MNASNet(0.1, num_classes=3), lambda name: name),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_earlier_torchvision_are_loaded_by_name(layout: str, caplog: pytest.LogCaptureFixture) -> None:
    build, earlier = LAYOUTS[layout]
    torch.manual_seed(1)
    given = build().state_dict()
    found = build()
    head = [name for name, module in found.named_modules() if isinstance(module, nn.Linear)][-1]
    with caplog.at_level(logging.INFO):
        load_state_dict(found, {f"net.{earlier(name)}": tensor for name, tensor in given.items()}, head, "FILE")
    assert caplog.messages == ["Loaded FILE: matched by name after the prefix 'net.'."]
    for name, tensor in found.state_dict().items():
        assert name.startswith(head) or torch.equal(tensor, given[name]), name


def test_early_mnasnet_weights_that_change_the_network_are_rejected() -> None:
    state = MNASNet(0.1, num_classes=3).state_dict()
    state["layers.0.weight"] = torch.zeros(32, 3, 3, 3)
    state._metadata[""]["version"] = 1
    with pytest.raises(WeightsError, match=r"layers.0.weight is \(32, 3, 3, 3\) instead of"):
        load_state_dict(MNASNet(0.1, num_classes=3), state, "classifier.1", "FILE")


def test_layouts_supported_by_timm_are_converted(caplog: pytest.LogCaptureFixture) -> None:
    architecture = create("timm/convnext_atto", 32)
    torch.manual_seed(1)
    given = timm.create_model("convnext_atto").state_dict()
    original = {}  # names in the code of the ConvNeXt authors
    for name, tensor in given.items():
        name = re.sub(r"^stem\.(\d)", r"downsample_layers.0.\1", name)
        name = re.sub(r"^stages\.(\d)\.downsample\.(\d)", r"downsample_layers.\1.\2", name)
        name = re.sub(r"^stages\.(\d)\.blocks\.(\d)", r"stages.\1.\2", name)
        name = name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv").replace("head.fc", "head")
        original[name.replace("head.norm", "norm")] = tensor
    with caplog.at_level(logging.INFO):
        load_state_dict(architecture.network, original, "head.fc", "FILE", architecture.convert)
    assert "converted by the architecture's library" in caplog.text
    for name, tensor in architecture.network.state_dict().items():
        assert name.startswith("head.fc") or torch.equal(tensor, given[name]), name


def test_weights_of_another_architecture_are_rejected_with_a_converter() -> None:
    architecture = create("timm/convnext_atto", 32)
    with pytest.raises(WeightsError, match="none of the 126"):
        load_state_dict(architecture.network, {"a": torch.zeros(1)}, "head.fc", "FILE", architecture.convert)
