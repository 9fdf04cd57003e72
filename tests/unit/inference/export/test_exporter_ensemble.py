from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.checkpoints import smooth_images
from helpers.ensembles import NAME, write_members

from pneumo.inference.ensemble_writer import write_ensemble
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.export.parity import write_checked
from pneumo.inference.export.torch_program import ProgramNetwork
from pneumo.inference.onnx_backend import OnnxNetwork
from pneumo.inference.torch_backend import CheckpointNetwork
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.checkpoint_writer import save_checkpoint

SIZE = 32
_OPEN: dict[str, Callable[[Path], OnnxNetwork | ProgramNetwork]] = {".onnx": OnnxNetwork, ".pt2": ProgramNetwork}


# onnxruntime's convolutions round differently from PyTorch's, also in exports of a single network.
@pytest.mark.parametrize(("suffix", "tolerance"), [(".onnx", 1e-5), (".pt2", 1e-6)])
def test_exported_predictions_are_the_mean_of_the_members(
    suffix: str, tolerance: float, members: list[Path], ensemble: Path, tmp_path: Path, export: Callable[..., int]
) -> None:
    path, images = tmp_path / f"network{suffix}", smooth_images(24, SIZE).numpy()
    assert export(ensemble, "--output", path) == 0
    exported = _OPEN[suffix](path)
    assert exported.rules == CheckpointNetwork(ensemble).rules
    if suffix == ".onnx":
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert {prop.key: prop.value for prop in model.metadata_props}["architecture"] == NAME
    networks = [CheckpointNetwork(member) for member in members]
    parts = [
        write_checked(network, member, images, tmp_path / f"{index}{suffix}")[0]
        for index, (network, member) in enumerate(zip(networks, members, strict=True))
    ]
    for count in (1, 24):
        probability, ood_score = exported.score(images[:count])
        for sources, limit in ((parts, 1e-6), (networks, tolerance)):
            probabilities, scores = zip(*(source.score(images[:count]) for source in sources), strict=True)
            np.testing.assert_allclose(probability, np.mean(probabilities, axis=0), atol=limit, rtol=0)
            np.testing.assert_allclose(ood_score, np.mean(scores, axis=0), rtol=1e-5)


@pytest.mark.parametrize("suffix", FORMATS)
def test_three_classes_and_a_missing_detector_are_exported(
    suffix: str, tmp_path: Path, export: Callable[..., int]
) -> None:
    members, images = write_members(tmp_path, classes=3), smooth_images(24, SIZE).numpy()
    content = read_checkpoint(members[1])
    del content["outliers"]
    save_checkpoint(content, members[1])
    write_ensemble(members, tmp_path / "ensemble.ckpt")
    assert export(tmp_path / "ensemble.ckpt", "--output", tmp_path / f"network{suffix}") == 0
    exported = _OPEN[suffix](tmp_path / f"network{suffix}")
    probability, ood_score = exported.score(images)
    mean = np.mean([CheckpointNetwork(member).score(images)[0] for member in members], axis=0)
    np.testing.assert_allclose(probability, mean, atol=1e-5, rtol=0)
    assert not ood_score.any()
    assert not exported.rules.has_ood_detector


def test_int8_requires_a_single_network(
    ensemble: Path, tmp_path: Path, export: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(ensemble, "--output", tmp_path / "a.onnx", "--int8", "--data", tmp_path) == 1
    assert "--int8 requires a single network" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
