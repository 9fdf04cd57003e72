import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pneumo.common.tensor_files import DigestError, digest_content, digest_tensor


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


def test_a_content_keeps_its_digest_when_it_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "a.pt")
    assert digest_content(torch.load(tmp_path / "a.pt", weights_only=True)) == digest_content(content())
    known = content()
    digests = {id(known["maps"]): digest_tensor(known["maps"])}
    assert digest_content(known, digests) == digest_content(content())


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
def test_contents_that_differ_have_other_digests(first: object, second: object) -> None:
    assert digest_content({"a": first}) != digest_content({"a": second})


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["sparse", "meta", "quantized", "nested", "conjugate"])
def test_a_tensor_of_any_kind_has_a_digest(kind: str) -> None:
    values = torch.ones(2)
    tensors: dict[str, Callable[[], torch.Tensor]] = {
        "sparse": values.to_sparse,
        "meta": lambda: values.to("meta"),
        "quantized": lambda: torch.quantize_per_tensor(values, 0.1, 0, torch.qint8),
        "nested": lambda: torch.nested.nested_tensor([values]),
        "conjugate": lambda: torch.complex(values, values).conj(),
    }
    assert digest_content({"a": tensors[kind]()}, most=100) != digest_content({"a": values})


def test_versions_of_modules_count() -> None:
    altered = content()
    altered["state_dict"]._metadata[""]["version"] = 2
    assert digest_content(altered) != digest_content(content())


@pytest.mark.parametrize("kind", ["deep", "itself", "wide"])
def test_what_is_nested_without_end_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumo.common.tensor_files._MOST", 10_000)
    nested: list[object] = []
    for _ in range(3_000 if kind == "deep" else 20):
        nested = [nested] if kind == "deep" else [nested] * 3
    if kind == "itself":
        nested.append(nested)
    with pytest.raises(DigestError, match="nested too deeply"):
        digest_content(nested)


def test_tensors_may_not_be_larger_than_their_file() -> None:
    with pytest.raises(DigestError, match="larger than the file"):
        digest_content([torch.zeros(1).expand(10**6, 10**6)], most=1000)
