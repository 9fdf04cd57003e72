from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import write_checkpoint
from helpers.damaged_images import SMOOTH_IMAGES, encode_image

import pneumo
from pneumo.errors import ConfigError, DataError, HardwareError, PneumoError
from pneumo.inference.backend import SettingStyle, as_argument, as_flag
from pneumo.inference.explain.saliency import METHODS, SaliencyMapper
from pneumo.inference.predictor import load_predictor
from pneumo.models.fast_inference import Scorer


@pytest.fixture(scope="module")
def model(best: Path) -> pneumo.Predictor:
    return pneumo.load_model(best, "cpu")


def test_files_and_folders_become_predictions(model: pneumo.Predictor, scans: Path) -> None:
    found = list(model.predict([scans / "1.png", str(scans)]))
    assert [str(each.path.relative_to(scans)) for each in found] == ["1.png", "0.png", "2.png", "more/0", "notes.txt"]
    *read, text = found
    for each in read:
        assert each.error is None
        assert list(each.probability) == ["NORMAL", "PNEUMONIA"]
        assert sum(each.probability.values()) == pytest.approx(1)
        assert each.predicted_class == ("PNEUMONIA" if each.probability["PNEUMONIA"] > 0.5 else "NORMAL")
        assert each.uncertain == (abs(each.logit_margin) <= 0.5)
        assert each.ood_score is not None
        assert each.out_of_distribution == (each.ood_score > 1)
    assert read[3].notes == ("lateral view according to the header",)
    assert read[3].probability == pytest.approx(read[1].probability)
    assert text == pneumo.Prediction(scans / "notes.txt", error="is text, not an image.")
    assert text.out_of_distribution is None
    assert [each.path for each in model.predict(str(scans / "*.png"))] == [scans / f"{i}.png" for i in range(3)]


def test_an_input_that_matches_nothing_is_refused_before_the_first_prediction(model: pneumo.Predictor) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        model.predict(["nowhere"])


def test_what_a_run_has_not_decided_is_unknown(scans: Path, tmp_path: Path) -> None:
    classes = ("NORMAL", "BACTERIAL", "VIRAL")
    model = pneumo.load_model(str(write_checkpoint(tmp_path / "last.ckpt", classes, tested=False)))
    (found,) = model.predict(scans / "1.png")
    assert (found.uncertain, found.ood_score, found.out_of_distribution) == (None, None, None)
    assert found.predicted_class == max(found.probability, key=lambda name: found.probability[name])
    assert found.positive_probability == pytest.approx(found.probability["BACTERIAL"] + found.probability["VIRAL"])


@pytest.mark.parametrize("method", METHODS)
def test_an_explanation_has_a_map_of_the_image(model: pneumo.Predictor, scans: Path, method: str) -> None:
    found = model.explain(scans / "0.png", method)
    (expected,) = model.predict(scans / "0.png")
    assert found.prediction.probability == pytest.approx(expected.probability, abs=1e-6)
    assert found.target == "PNEUMONIA"
    assert (found.image == SMOOTH_IMAGES[0]).all()
    assert found.saliency.shape == found.image.shape
    assert found.saliency.dtype == np.float32
    assert found.saliency.min() == 0
    assert found.saliency.max() == pytest.approx(1, abs=0.1)
    assert found.overlay.shape == (*found.image.shape, 3)


def test_what_cannot_be_explained_is_an_error(model: pneumo.Predictor, scans: Path) -> None:
    with pytest.raises(DataError, match=r"notes\.txt is text"):
        model.explain(scans / "notes.txt")
    with pytest.raises(ConfigError, match="method=lime"):
        model.explain(scans / "0.png", "lime")


@pytest.mark.parametrize(
    ("device", "batch_size", "message"),
    [
        ("gpu", None, "device='gpu' is none of auto, cpu and cuda"),
        ("cuda", None, r"device='cuda' demands a GPU, and .* take device='cpu', or"),
        ("cpu", 0, "batch_size=0 must be 1 or more films at once, such as batch_size=16"),
    ],
)
def test_errors_name_the_arguments_of_the_call(
    device: str, batch_size: int | None, message: str, best: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PneumoError, match=message) as error:
        pneumo.load_model(best, device, batch_size)
    assert "--" not in str(error.value)


@pytest.mark.parametrize(
    ("style", "remedy"),
    [
        (as_argument, "such as batch_size={count}, or device='cpu'."),
        (as_flag, "such as --batch-size {count}, or --device cpu."),
    ],
)
def test_too_many_images_for_a_gpu_are_an_error_that_names_the_settings(
    style: SettingStyle, remedy: str, best: Path, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError

    model = load_predictor(best, "cpu", None, style)
    monkeypatch.setattr(SaliencyMapper, "__call__", fail)
    with pytest.raises(HardwareError) as explaining:
        model.explain(scans / "0.png")
    assert str(explaining.value).endswith(remedy.format(count=4))
    monkeypatch.setattr(Scorer, "forward", fail)
    with pytest.raises(HardwareError) as predicting:
        list(model.predict(scans / "0.png"))
    assert str(predicting.value).endswith(remedy.format(count=1))


def test_films_that_are_given_by_content_have_no_path(model: pneumo.Predictor) -> None:
    from pneumo.inference.inputs import read_input

    (found,) = model.predict_images([read_input(encode_image(SMOOTH_IMAGES[0], "PNG"), model.rules, show=False)])
    assert found.path == Path("-")


@pytest.mark.parametrize("name", ["load_modle", "prediction_"])
def test_the_package_exports_its_public_names_only(name: str) -> None:
    assert {"Explanation", "Prediction", "Predictor", "load_model"} < set(pneumo.__all__)
    with pytest.raises(AttributeError, match=name):
        getattr(pneumo, name)
