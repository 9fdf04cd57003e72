import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.checkpoints import smooth_images, write_untrained
from helpers.damaged_images import SMOOTH_IMAGES, encode_image

from pneumo.errors import ConfigError
from pneumo.inference.export import exporter, parity
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.export.parity import compare, score_reference, write_checked
from pneumo.inference.export.torch_program import ProgramNetwork
from pneumo.inference.predictor import open_network
from pneumo.inference.torch_backend import CheckpointNetwork
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.classifier import Classifier
from pneumo.training.checkpoints import write_checkpoint

SIZE = 32  # of the checkpoint in conftest.py


def test_onnx_predictions_equal_the_checkpoints_for_any_batch_size(checkpoint: Path, exported: Path) -> None:
    network, images = open_network(exported), smooth_images(7, SIZE).numpy()
    classifier = Classifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    expected = score_reference(classifier, images)
    assert np.ptp(expected[0][:, 1]) > 0.01  # predictions differ between images
    assert np.ptp(expected[1]) > 0.01
    for count in (1, 2, 7):
        probability, ood_score = network.score(images[:count])
        assert probability.dtype == ood_score.dtype == np.dtype(np.float32)
        np.testing.assert_allclose(probability, expected[0][:count], atol=1e-5)
        np.testing.assert_allclose(ood_score, expected[1][:count], rtol=1e-4)


def test_the_file_contains_everything_needed_to_use_it(checkpoint: Path, exported: Path) -> None:
    assert open_network(exported).rules == CheckpointNetwork(checkpoint).rules
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    assert metadata["architecture"] == "pneumo/xraychestnet"
    assert len(metadata["checkpoint_sha256"]) == 64
    assert "resized to 36 x 36" in model.doc_string
    assert "Not a medical device" in model.doc_string
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["probability", "unlike", "ood_score"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_outputs_unlike_and_ood_score_are_equal(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported)
    _, unlike, ood_score = session.run(None, {"image": smooth_images(7, SIZE).numpy()})
    np.testing.assert_array_equal(unlike, ood_score)
    assert "output unlike has the same values as ood_score" in onnx.load(exported).doc_string


def test_files_with_two_outputs_from_earlier_versions_predict_the_same(exported: Path, two_outputs: Path) -> None:
    assert [value.name for value in onnx.load(two_outputs).graph.output] == ["probability", "unlike"]
    earlier, network, images = open_network(two_outputs), open_network(exported), smooth_images(7, SIZE).numpy()
    assert earlier.rules == network.rules
    for expected, actual in zip(network.score(images), earlier.score(images), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_the_file_contains_nothing_about_the_machine(exported: Path) -> None:
    content = exported.read_bytes()
    assert str(Path(exporter.__file__).parents[2]).encode() not in content
    assert b"stack_trace" not in content


def test_a_pytorch_program_predicts_the_same_and_the_terminal_output_is_short(
    checkpoint: Path, tmp_path: Path, export: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "network.pt2"
    assert export(checkpoint, "--output", path) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    assert "[torch" not in captured.out
    assert "Warning" not in captured.out
    assert captured.out.count("\n") < 15
    assert "Not a medical device" in captured.out
    program, network, images = ProgramNetwork(path), CheckpointNetwork(checkpoint), smooth_images(5, SIZE).numpy()
    assert program.rules == network.rules
    for count in (1, 5):
        np.testing.assert_allclose(program.score(images[:count])[0], network.score(images[:count])[0], atol=1e-6)
    assert str(Path(exporter.__file__).parents[2]).encode() not in path.read_bytes()
    with pytest.raises(ConfigError, match="execute arbitrary code"):
        open_network(path)


def test_an_exported_network_is_loaded_without_importing_pytorch(exported: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(encode_image(SMOOTH_IMAGES[0], "PNG"))
    code = f"""
import sys
import pneumo
print(sorted({{"torch", "numpy", "PIL"}} & set(sys.modules)))
model = pneumo.load_model({str(exported)!r})
import pneumo.inference.serve.app, pneumo.inference.serve.server
assert pneumo.inference.serve.server._open_explainer(model) is None
pneumo.inference.serve.app.make_app(model, None, ["localhost"])
print([prediction.predicted_class for prediction in model.predict({str(image)!r})])
print(sorted({{"torch", "lightning", "onnx"}} & set(sys.modules)))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, predicted, after = process.stdout.splitlines()
    assert before == after == "[]"
    assert predicted in ("['NORMAL']", "['PNEUMONIA']")
    assert "Serving without saliency maps" in process.stderr


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_checkpoint_without_ood_detector_can_be_exported(suffix: str, checkpoint: Path, tmp_path: Path) -> None:
    content = read_checkpoint(checkpoint)
    del content["outliers"]
    path, exported = tmp_path / "best.ckpt", tmp_path / f"network{suffix}"
    write_checkpoint(content, path)
    write_checked(CheckpointNetwork(path), path, smooth_images(5, SIZE).numpy(), exported)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_crop_to_the_lungs_is_exported(suffix: str, tmp_path: Path) -> None:
    checkpoint = write_untrained(tmp_path / "best.ckpt", "pneumo/xraychestnet", 48, lung_crop=32)
    crop = Classifier.load_from_checkpoint(checkpoint).backbone.crop
    images = smooth_images(5, 48)
    assert crop is not None
    assert (crop.boxes(images) - torch.tensor([0, 0, 1, 1])).abs().max() > 0.03
    exported, _ = write_checked(CheckpointNetwork(checkpoint), checkpoint, images.numpy(), tmp_path / f"a{suffix}")
    np.testing.assert_allclose(
        exported.score(images[:3].numpy())[0], CheckpointNetwork(checkpoint).score(images[:3].numpy())[0], atol=1e-5
    )


def test_nan_exceeds_the_tolerance() -> None:
    expected = (np.full((2, 2), 0.5, np.float32), np.zeros(2, np.float32))
    actual = (np.full((2, 2), np.nan, np.float32), np.zeros(2, np.float32))
    assert not compare(expected, actual).probability <= parity.TOLERANCE.probability


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "size", "flip", "classes"),
    [
        ("torchvision/resnext50_32x4d", 64, True, 2),
        ("torchvision/googlenet", 64, False, 3),
        ("torchvision/vgg16", 32, False, 2),
        ("timm/vit_tiny_patch16_224", 224, False, 2),
    ],
)
def test_other_architectures_can_be_exported(
    architecture: str, size: int, flip: bool, classes: int, tmp_path: Path
) -> None:
    checkpoint = write_untrained(tmp_path / "best.ckpt", architecture, size, flip, classes)
    network = CheckpointNetwork(checkpoint)
    for suffix in FORMATS:
        exported, _ = write_checked(network, checkpoint, smooth_images(5, size).numpy(), tmp_path / f"network{suffix}")
        assert exported.rules == network.rules
