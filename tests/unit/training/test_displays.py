from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from helpers.commands import Compose
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from pneumo.config.checks import check_config
from pneumo.data.previews import load_images
from pneumo.errors import ConfigError
from pneumo.metrics.predictions import Predictions
from pneumo.training.components import build
from pneumo.training.displays import PROJECTOR_FILES, write_projector
from pneumo.training.loggers import RunLogger


@pytest.mark.parametrize("served", [False, True])
def test_the_projector_has_features_predictions_and_thumbnails_of_each_test_image(
    served: bool, compose_run: Compose, tmp_path: Path
) -> None:
    components = build(compose_run())
    datamodule, classifier = components.datamodule, components.classifier
    images = datamodule.splits["test"][5:12]
    positive, probability = np.array([image.label == 1 for image in images]), np.linspace(0, 1, 7)
    paths = tuple(image.path for image in images)
    predictions = Predictions.binary(probability, positive, probability > 0.5, ("NORMAL", "PNEUMONIA"), paths)
    pixels = load_images(datamodule, images)
    with torch.inference_mode():
        expected = classifier.eval().backbone(torch.from_numpy(pixels[:, None])).numpy()
    if served:
        features = np.zeros((len(datamodule.radiographs), expected.shape[1]), np.float32)
        features[[datamodule.radiographs.index(image) for image in images]] = expected
        datamodule.use_features(features)
    logger = RunLogger(str(tmp_path))
    write_projector(tmp_path, logger, predictions, components)
    logger.finalize("success")

    config = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    written = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "projector").rglob("*.*")}
    assert written == set(PROJECTOR_FILES[1:4])  # the next run in this folder removes these
    np.testing.assert_allclose(np.loadtxt(tmp_path / embedding.tensor_path), expected, rtol=1e-4, atol=1e-5)
    header, *rows = [line.split("\t") for line in (tmp_path / embedding.metadata_path).read_text().splitlines()]
    assert header == ["class", "predicted class", "outcome", "probability", "subtype", "file"]
    assert [row[-1] for row in rows] == list(predictions.paths)
    assert [row[2] == "correct" for row in rows] == predictions.correct.tolist()
    sprite, side = Image.open(tmp_path / embedding.sprite.image_path), embedding.sprite.single_image_dim[0]
    assert sprite.size == (3 * side, 3 * side)  # the smallest square grid for 7 images
    fifth = sprite.convert("L").crop((side, side, 2 * side, 2 * side)).resize(pixels[4].shape)
    assert np.abs(np.asarray(fifth, float) - pixels[4]).mean() < 3


def test_the_projector_setting_must_be_true_or_false(compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"logger\.tensorboard\.projector=maybe must be true or false"):
        check_config(compose_run("logger.tensorboard.projector=maybe"))
    check_config(compose_run("~logger.tensorboard"))
