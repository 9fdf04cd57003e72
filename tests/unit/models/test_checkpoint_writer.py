from pathlib import Path

import pytest
import torch

from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.checkpoint_writer import CheckpointWriteError, save_checkpoint

CONTENT = {"state_dict": {"w": torch.arange(3.0)}, "hyper_parameters": {"threshold": 0.5}}


def test_written_checkpoints_are_read_and_verified(tmp_path: Path) -> None:
    save_checkpoint(CONTENT, tmp_path / "new" / "a.ckpt")
    found = read_checkpoint(tmp_path / "new" / "a.ckpt")
    assert torch.equal(found["state_dict"]["w"], torch.arange(3.0))
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "a.ckpt"]


def test_a_path_below_a_file_is_an_error_with_the_systems_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointWriteError, match=r"directory|exists"):
        save_checkpoint(CONTENT, tmp_path / "file" / "a.ckpt")
