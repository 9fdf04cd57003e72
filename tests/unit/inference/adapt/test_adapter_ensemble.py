from pathlib import Path

import numpy as np
import pytest
from helpers.adaptation import adapt_checkpoint
from helpers.checkpoints import smooth_images

from pneumo.data.labelled_images import LabelledSet
from pneumo.errors import ConfigError
from pneumo.inference.ensemble_writer import write_ensemble
from pneumo.inference.export.parity import write_checked
from pneumo.inference.predictor import load_model
from pneumo.inference.torch_backend import CheckpointNetwork

SIZE = 32


@pytest.fixture(scope="module")
def adapted_ensemble(ensemble: Path, local_images: LabelledSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapted") / "adapted.ckpt"
    adapt_checkpoint(ensemble, local_images, path)
    return path


def test_the_log_odds_of_the_mean_are_scaled_and_shifted(
    ensemble: Path, adapted_ensemble: Path, local_images: LabelledSet
) -> None:
    files = [image.file for image in local_images.images]
    models = [load_model(path, "cpu") for path in (ensemble, adapted_ensemble)]
    before, after = (np.array([each.logit_margin for each in model.predict(files)]) for model in models)
    record = models[1].network.adaptation()
    assert record is not None
    assert record["before"]["temperature"] == 1
    assert record["before"]["threshold"] == models[0].rules.threshold
    point = record["after"]
    assert (models[1].rules.threshold, models[1].rules.margin) == (point["threshold"], point["margin"])
    assert abs(point["temperature"] - 1) + abs(point["intercept"]) > 0.1
    np.testing.assert_allclose(after, before / point["temperature"] + point["intercept"], atol=1e-4)
    tests = [model.network.internal_test() for model in models]
    margins = [test.margin for test in tests if test is not None and test.margin is not None]
    np.testing.assert_allclose(margins[1], margins[0] / point["temperature"] + point["intercept"], atol=1e-9)


def test_an_adapted_ensemble_is_adapted_from_its_original_operating_point(
    adapted_ensemble: Path, local_images: LabelledSet, tmp_path: Path
) -> None:
    first = CheckpointNetwork(adapted_ensemble).adaptation()
    again = adapt_checkpoint(adapted_ensemble, local_images, tmp_path / "again.ckpt")
    assert first is not None
    assert again["adaptation"]["before"] == first["before"]
    for name, value in first["after"].items():
        assert again["adaptation"]["after"][name] == pytest.approx(value, rel=1e-3), name


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_exported_files_predict_like_the_adapted_ensemble(adapted_ensemble: Path, tmp_path: Path, suffix: str) -> None:
    network, images = CheckpointNetwork(adapted_ensemble), smooth_images(9, SIZE).numpy()
    exported, _ = write_checked(network, adapted_ensemble, images, tmp_path / f"network{suffix}")
    np.testing.assert_allclose(exported.score(images)[0], network.score(images)[0], atol=1e-5, rtol=0)
    assert exported.rules == network.rules


def test_adapted_checkpoints_cannot_be_combined(adapted: Path, local_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"adapted\.ckpt cannot be a member.*adapted to one site"):
        write_ensemble([local_checkpoint, adapted], tmp_path / "ensemble.ckpt")
