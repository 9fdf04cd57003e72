import os
import shutil
import time
from pathlib import Path
from typing import Any, BinaryIO
from unittest.mock import Mock

import pytest
import torch

from pneumo.common.tensor_files import hash_tensor
from pneumo.errors import ConfigError, TrainingError
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.training import checkpoints
from pneumo.training.checkpoints import CheckpointWriter, RunCheckpoint


def test_a_crash_while_writing_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    writer = CheckpointWriter()
    writer.save_checkpoint({**state(0), "epoch": 1}, path)
    writer.flush()

    def crash(content: object, target: BinaryIO) -> None:
        target.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", crash)
    writer.save_checkpoint({**state(0), "epoch": 2}, path)
    with pytest.raises(TrainingError, match=r"last\.ckpt .*no space left.*ckpt_path="):
        writer.flush()
    assert read_checkpoint(path)["epoch"] == 1
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_the_best_score_survives_moving_the_run_folder(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    callback = RunCheckpoint(dirpath=tmp_path / "old", filename="best", monitor="val/loss")
    callback.best_model_path = callback.kth_best_model_path = str(tmp_path / "old" / "best.ckpt")
    callback.best_model_score = callback.kth_value = torch.tensor(0.25)
    callback.best_k_models = {callback.best_model_path: torch.tensor(0.25)}
    shutil.move(tmp_path / "old", tmp_path / "new")

    moved = RunCheckpoint(dirpath=tmp_path / "new", filename="best", monitor="val/loss")
    moved.load_state_dict(callback.state_dict())
    assert moved.best_model_path == moved.kth_best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert moved.best_model_score == moved.best_k_models[moved.best_model_path] == torch.tensor(0.25)


@pytest.mark.parametrize("elsewhere", ["/etc/best.ckpt", "../../other/best.ckpt", "C:\\runs\\best.ckpt"])
def test_restored_paths_are_in_the_run_folder(elsewhere: str, tmp_path: Path) -> None:
    callback = RunCheckpoint(dirpath=tmp_path, filename="best", monitor="val/loss")
    score = torch.tensor(0.25)
    paths = dict.fromkeys(("best_model_path", "kth_best_model_path", "last_model_path"), elsewhere)
    stored = {**callback.state_dict(), **paths, "dirpath": "/etc", "best_k_models": {elsewhere: score}}
    callback.load_state_dict({**stored, "best_model_score": score, "kth_value": score})
    expected = str(tmp_path / "best.ckpt")
    assert callback.best_model_path == callback.kth_best_model_path == callback.last_model_path == expected
    assert callback.best_k_models == {expected: score}
    with pytest.raises(ConfigError, match=r"/etc/passwd is not a checkpoint of this run"):
        callback.load_state_dict({**stored, "best_model_path": "/etc/passwd"})


@pytest.mark.parametrize("content", [None, b"", b"text", [1, 2], {"state_dict": {}}])
def test_invalid_checkpoints_raise_an_error_with_their_path(content: object, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(
        ConfigError, match=r"a\.ckpt (is not a file|cannot be read|is not the checkpoint of a classifier)"
    ):
        read_checkpoint(path)


def test_both_checkpoints_of_a_long_epoch_are_written_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    writer, paths = CheckpointWriter(), [tmp_path / name for name in ("best.ckpt", "last.ckpt")]
    for epoch, end in enumerate((5.0, 300.0, 600.0)):  # the first epoch ends within the pause
        now[0] = end
        for path in paths:
            writer.save_checkpoint({**state(0), "epoch": epoch}, path)
        if epoch:
            assert [read_checkpoint(path)["epoch"] for path in paths] == [epoch, epoch]
        else:
            assert not any(path.exists() for path in paths)


def state(value: float) -> dict[str, Any]:
    return {"hyper_parameters": {}, "state_dict": {"head": torch.full((2,), value), "backbone": torch.ones(2)}}


def test_constant_weights_are_hashed_again_only_if_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = Mock(side_effect=hash_tensor)
    monkeypatch.setattr(checkpoints, "hash_tensor", hashed)
    path, writer, backbone = tmp_path / "last.ckpt", CheckpointWriter(constant=["backbone"]), torch.ones(2)
    for changed, count in ((False, 1), (False, 1), (True, 2)):
        if changed:
            backbone += 1
        writer.save_checkpoint({**state(0), "state_dict": {"backbone": backbone.detach()}}, path)
        writer.flush()
        assert read_checkpoint(path)["state_dict"]["backbone"].equal(backbone)
        assert hashed.call_count == count


def test_frequent_checkpoints_wait_and_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    writer = CheckpointWriter(constant=["backbone"])
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"

    def written(path: Path) -> float:
        return float(read_checkpoint(path)["state_dict"]["head"][0])

    writer.save_checkpoint(state(0), best)
    assert not best.exists()
    now[0] = 11
    writer.save_checkpoint(state(1), best)
    writer.save_checkpoint(state(1), last)
    assert written(best) == written(last) == 1
    late = state(2)
    writer.save_checkpoint(late, last)
    writer.save_checkpoint(state(3), best)
    writer.save_checkpoint(state(3), last)
    late["state_dict"]["head"] += 100
    assert written(best) == written(last) == 1
    assert list(writer.waiting) == [best, last]  # last must not be ahead of best
    assert writer.waiting[best]["state_dict"]["head"].tolist() == [3, 3]
    now[0] = 22
    writer.save_checkpoint(state(4), last)
    assert (written(best), written(last)) == (3, 4)
    waiting = state(5)
    writer.save_checkpoint(waiting, last)
    waiting["state_dict"]["head"] += 100  # as the next step does, in place
    assert writer.load_checkpoint(last)["state_dict"]["head"].tolist() == [5, 5]
    writer.save_checkpoint(state(6), last)
    writer.teardown()
    assert written(last) == 6
    writer.save_checkpoint(state(7), last)
    assert written(last) == 7  # nothing waits after training
