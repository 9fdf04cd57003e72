import random
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from pneumo.common.tensor_files import UnreadableError, read_tensors


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.filterwarnings("ignore")  # torch warns of some damages before it fails
def test_a_damaged_file_is_read_or_refused_and_never_crashes(kind: str, tmp_path: Path) -> None:
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
def test_the_content_decides_the_format(name: str, tmp_path: Path) -> None:
    weights = {"w": torch.randn(2, 2)}
    safetensors.torch.save_file(weights, tmp_path / name)
    assert read_tensors(tmp_path / name)["w"].equal(weights["w"])
    torch.save(weights, tmp_path / name)
    assert read_tensors(tmp_path / name)["w"].equal(weights["w"])


def test_arguments_of_a_training_script_are_read(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "args": Namespace(lr=0.1)}, tmp_path / "a.pth")
    assert read_tensors(tmp_path / "a.pth")["args"].lr == 0.1


def test_what_could_run_code_is_named(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "best": np.float64(0.9)}, tmp_path / "a.pth")
    with pytest.raises(UnreadableError, match=r"numpy\._core\.multiarray\.scalar objects could run code"):
        read_tensors(tmp_path / "a.pth")
