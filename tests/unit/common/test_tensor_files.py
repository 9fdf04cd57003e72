import random
import struct
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from pneumo.common.tensor_files import DigestError, UnreadableError, hash_content, hash_tensor, read_tensors


def content() -> dict[str, Any]:
    state = OrderedDict(w=torch.arange(12.0).view(3, 4), steps=torch.tensor(3))
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined] # as nn.Module.state_dict leaves it
    return {
        "state_dict": state,
        "maps": torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(
            memory_format=torch.channels_last
        ),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 2),
        "sizes": torch.Size([1, 2]),
        "dtype": torch.float16,
        "numbers": [0, -1, True, None, 1.5, float("inf"), struct.unpack(">d", b"\x7f\xf8\0\0\0\0\0\1")[0], 10**600],
        "text": ("ä\udc80", b"\0", {1: "a", "b": ()}),
    }


def test_saving_and_loading_preserve_the_digest(tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "a.pt")
    assert hash_content(torch.load(tmp_path / "a.pt", weights_only=True)) == hash_content(content())
    known = content()
    digests = {id(known["maps"]): hash_tensor(known["maps"])}
    assert hash_content(known, digests) == hash_content(content())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (torch.zeros(4), torch.tensor([0, 0, 0, 1e-45])),
        (torch.zeros(4), torch.tensor([0, 0, 0, -0.0])),
        (torch.zeros(4), torch.zeros(2, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        ([1, [2]], [[1], 2]),
        ([1], (1,)),
        ([], {}),
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        (None, 0),
        ("1", 1),
        ("a", b"a"),
        (["ab", "c"], ["a", "bc"]),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        (torch.float16, torch.float32),
    ],
)
def test_different_contents_have_different_digests(first: object, second: object) -> None:
    assert hash_content({"a": first}) != hash_content({"a": second})


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["sparse", "meta", "quantized", "nested", "conjugate"])
def test_every_kind_of_tensor_has_a_digest(kind: str) -> None:
    values = torch.ones(2)
    tensors: dict[str, Callable[[], torch.Tensor]] = {
        "sparse": values.to_sparse,
        "meta": lambda: values.to("meta"),
        "quantized": lambda: torch.quantize_per_tensor(values, 0.1, 0, torch.qint8),
        "nested": lambda: torch.nested.nested_tensor([values]),
        "conjugate": lambda: torch.complex(values, values).conj(),
    }
    assert hash_content({"a": tensors[kind]()}, limit=100) != hash_content({"a": values})


def test_the_digest_depends_on_module_versions() -> None:
    altered = content()
    altered["state_dict"]._metadata[""]["version"] = 2
    assert hash_content(altered) != hash_content(content())


@pytest.mark.parametrize("kind", ["deep", "itself", "wide"])
def test_excessive_nesting_is_rejected(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumo.common.tensor_files._MAX_VALUES", 10_000)
    nested: list[object] = []
    for _ in range(3_000 if kind == "deep" else 20):
        nested = [nested] if kind == "deep" else [nested] * 3
    if kind == "itself":
        nested.append(nested)
    with pytest.raises(DigestError, match="nested too deeply"):
        hash_content(nested)


def test_tensors_must_not_be_larger_than_the_limit() -> None:
    with pytest.raises(DigestError, match="larger than the file"):
        hash_content([torch.zeros(1).expand(10**6, 10**6)], limit=1000)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.filterwarnings("ignore")  # torch warns about some kinds of damage before it fails
def test_a_damaged_file_is_read_or_rejected_without_a_crash(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    weights = {"w": torch.randn(4, 4), "b": torch.zeros(3, dtype=torch.int64)}
    if kind == "safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    assert read_tensors(path)["w"].equal(weights["w"])
    generator, reasons = random.Random(0), []
    for _ in range(600):
        damaged = bytearray(whole[: generator.randrange(1, len(whole))] if generator.random() < 0.4 else whole)
        for _ in range(generator.randrange(1, 6)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            read_tensors(path)
        except UnreadableError as error:
            reasons.append(str(error))
    assert len(reasons) > 100
    assert all(0 < len(reason) <= 200 for reason in reasons)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.pth.tar", "a"])
def test_the_format_is_detected_from_the_content(name: str, tmp_path: Path) -> None:
    weights = {"w": torch.randn(2, 2)}
    safetensors.torch.save_file(weights, tmp_path / name)
    assert read_tensors(tmp_path / name)["w"].equal(weights["w"])
    torch.save(weights, tmp_path / name)
    assert read_tensors(tmp_path / name)["w"].equal(weights["w"])


def test_stored_arguments_of_a_training_script_are_read(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "args": Namespace(lr=0.1)}, tmp_path / "a.pth")
    assert read_tensors(tmp_path / "a.pth")["args"].lr == 0.1


def test_an_object_that_could_run_code_is_named(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "best": np.float64(0.9)}, tmp_path / "a.pth")
    with pytest.raises(UnreadableError, match=r"numpy\._core\.multiarray\.scalar objects could run code"):
        read_tensors(tmp_path / "a.pth")
