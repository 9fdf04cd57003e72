from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumo.data.labelled_images import read_labelled
from pneumo.errors import ConfigError
from pneumo.inference.evaluate.cohort import predict_cohort
from pneumo.inference.evaluate.leakage import find_leakage, folder_images
from pneumo.inference.predictor import Predictor, load_model


@pytest.fixture
def copies(phantoms: Path, tmp_path: Path) -> Path:
    """A labelled folder: six test images, and resized copies of two training images."""
    folder = tmp_path / "scans"
    for name in ("NORMAL", "PNEUMONIA"):
        (folder / name).mkdir(parents=True)
        for file in sorted((phantoms / "test" / name).iterdir())[:3]:
            Image.open(file).save(folder / name / f"{len(list((folder / name).iterdir()))}.png")
        source = Image.open(min((phantoms / "train" / name).iterdir()))
        source.resize((source.width * 3 // 4, source.height * 3 // 4)).save(folder / name / "copy.png")
    return folder


def test_copies_of_training_images_are_found_and_left_out(
    copies: Path, phantoms: Path, tmp_path: Path, model: Predictor
) -> None:
    cohort = predict_cohort(model, read_labelled(copies), keep_thumbnails=True)
    training = folder_images(phantoms)
    assert len(training.paths) == 80  # without the test images
    leakage = find_leakage(cohort, training, tmp_path / "cache")
    assert [image for image, _ in leakage.pairs] == ["NORMAL/copy.png", "PNEUMONIA/copy.png"]
    assert all(path.startswith("train/") for _, path in leakage.pairs)
    assert (leakage.images, leakage.training_images) == (2, 80)
    assert leakage.metrics_without is not None
    others = ["copy" not in image.name for image in cohort.images]
    assert leakage.metrics_without["accuracy"].value == pytest.approx(np.mean(cohort.predictions.correct[others]))
    assert find_leakage(cohort, training, tmp_path / "cache") == leakage  # from the cache


def test_an_evaluation_reports_leakage_as_an_error(
    copies: Path, phantoms: Path, tmp_path: Path, model: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluation = model.evaluate(copies, training_data=phantoms / "train")
    content = evaluation.to_dict()
    assert content["leakage_images"] == 2
    assert content["metrics_without_duplicates"]["accuracy"] is not None
    assert [verdict["severity"] for verdict in content["verdicts"] if verdict["check"] == "leakage"] == ["error"]
    assert "copy.png" in evaluation.to_html()


def test_a_folder_of_training_images_replaces_that_of_the_run(
    copies: Path, phantoms: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    normal = phantoms / "train" / "NORMAL"
    best = load_model(finished / "checkpoints" / "best.ckpt", "cpu")
    content = best.evaluate(copies, run=finished, training_data=normal).to_dict()
    assert (content["training_images"], content["leakage_images"]) == (len(list(normal.iterdir())), 1)
    assert content["internal_images"] == 32  # of the run


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--training-data"):
        folder_images(tmp_path)
