from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import write_checkpoint
from helpers.damaged_images import SMOOTH_IMAGES, encode_image
from PIL import Image

import pneumo
from pneumo.common.input_format import ASPECTS, HISTOGRAMS, InputFormat
from pneumo.data.grey import square
from pneumo.errors import ConfigError, DataError, HardwareError, PneumoError
from pneumo.inference.backend import SettingStyle, as_argument, as_flag
from pneumo.inference.explain.saliency import METHODS, SaliencyMapper
from pneumo.inference.predictor import load_predictor
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.fast_inference import InferenceModule
from pneumo.training.checkpoints import write_checkpoint as write


@pytest.fixture(scope="module")
def model(best: Path) -> pneumo.Predictor:
    return pneumo.load_model(best, "cpu")


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("histogram", HISTOGRAMS)
def test_images_are_converted_as_the_checkpoint_says(aspect: str, histogram: str, best: Path, tmp_path: Path) -> None:
    content = read_checkpoint(best)
    content["hyper_parameters"] |= {"aspect": aspect, "histogram": histogram}
    write(content, tmp_path / "other.ckpt")
    other = pneumo.load_model(tmp_path / "other.ckpt", "cpu")
    assert (other.rules.aspect, other.rules.histogram) == (aspect, histogram)
    image = Image.fromarray(SMOOTH_IMAGES[1]).resize((90, 50))
    image.save(tmp_path / "wide.png")
    (prediction,) = other.predict(tmp_path / "wide.png")
    pixels = square(image, InputFormat(32, 0.9, aspect, histogram)).copy()
    expected = other.network.score(pixels[None, None])[0][0]
    assert list(prediction.probability.values()) == pytest.approx(expected.tolist())


def test_files_and_folders_are_predicted(model: pneumo.Predictor, scans: Path) -> None:
    predictions = list(model.predict([scans / "1.png", str(scans)]))
    assert [str(each.path.relative_to(scans)) for each in predictions] == [
        "1.png",
        "0.png",
        "2.png",
        "more/0",
        "notes.txt",
    ]
    *read, text = predictions
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


def test_an_input_without_matches_is_an_error_before_the_first_prediction(model: pneumo.Predictor) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        model.predict(["nowhere"])


def test_an_uncalibrated_checkpoint_predicts_neither_uncertainty_nor_ood(scans: Path, tmp_path: Path) -> None:
    classes = ("NORMAL", "BACTERIAL", "VIRAL")
    model = pneumo.load_model(str(write_checkpoint(tmp_path / "last.ckpt", classes, tested=False)))
    (prediction,) = model.predict(scans / "1.png")
    assert (prediction.uncertain, prediction.ood_score, prediction.out_of_distribution) == (None, None, None)
    assert prediction.predicted_class == max(prediction.probability, key=lambda name: prediction.probability[name])
    assert prediction.positive_probability == pytest.approx(
        prediction.probability["BACTERIAL"] + prediction.probability["VIRAL"]
    )


@pytest.mark.parametrize("method", METHODS)
def test_an_explanation_has_a_saliency_map_of_the_image(model: pneumo.Predictor, scans: Path, method: str) -> None:
    explanation = model.explain(scans / "0.png", method)
    (expected,) = model.predict(scans / "0.png")
    assert explanation.prediction.probability == pytest.approx(expected.probability, abs=1e-6)
    assert explanation.target == "PNEUMONIA"
    assert (explanation.image == SMOOTH_IMAGES[0]).all()
    assert explanation.saliency.shape == explanation.image.shape
    assert explanation.saliency.dtype == np.float32
    assert explanation.saliency.min() == 0
    assert explanation.saliency.max() == pytest.approx(1, abs=0.1)
    assert explanation.overlay.shape == (*explanation.image.shape, 3)


def test_an_unreadable_file_or_unknown_method_is_an_error(model: pneumo.Predictor, scans: Path) -> None:
    with pytest.raises(DataError, match=r"notes\.txt is text"):
        model.explain(scans / "notes.txt")
    with pytest.raises(ConfigError, match="method=lime"):
        model.explain(scans / "0.png", "lime")


@pytest.mark.parametrize(
    ("device", "batch_size", "message"),
    [
        ("gpu", None, "device='gpu' is not a device: it must be auto, cpu or cuda"),
        ("cuda", None, r"device='cuda' needs a GPU, and .* Use device='cpu', or"),
        ("cpu", 0, "batch_size=0 is out of range: it must be 1 or more. Use a value such as batch_size=16"),
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
    ("style", "fix"),
    [
        (as_argument, "such as batch_size={count}, or device='cpu'."),
        (as_flag, "such as --batch-size {count}, or --device cpu."),
    ],
)
def test_out_of_gpu_memory_is_an_error_that_names_the_settings(
    style: SettingStyle, fix: str, best: Path, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError

    model = load_predictor(best, "cpu", None, style)
    monkeypatch.setattr(SaliencyMapper, "__call__", fail)
    with pytest.raises(HardwareError) as explaining:
        model.explain(scans / "0.png")
    assert str(explaining.value).endswith(fix.format(count=4))
    monkeypatch.setattr(InferenceModule, "forward", fail)
    with pytest.raises(HardwareError) as predicting:
        list(model.predict(scans / "0.png"))
    assert str(predicting.value).endswith(fix.format(count=1))


def test_images_from_bytes_have_no_path(model: pneumo.Predictor) -> None:
    from pneumo.inference.inputs import read_input

    (prediction,) = model.predict_images(
        [read_input(encode_image(SMOOTH_IMAGES[0], "PNG"), model.rules, keep_preview=False)]
    )
    assert prediction.path == Path("-")


@pytest.mark.parametrize("name", ["load_modle", "prediction_"])
def test_the_package_exports_its_public_names_only(name: str) -> None:
    assert {"Explanation", "Prediction", "Predictor", "load_model"} < set(pneumo.__all__)
    with pytest.raises(AttributeError, match=name):
        getattr(pneumo, name)
