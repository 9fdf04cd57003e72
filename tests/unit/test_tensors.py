import random
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pneumo.tensors import UnreadableError, read_tensors


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
