import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.checkpoints import smooth_images, write_untrained
from helpers.damaged_images import SMOOTH_IMAGES, encode_image

from pneumo.errors import ConfigError
from pneumo.inference.export import exporter, parity
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.export.parity import compare, score_plainly, write_checked
from pneumo.inference.export.torch_program import ProgramNetwork
from pneumo.inference.predictor import open_network
from pneumo.inference.torch_backend import CheckpointNetwork
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.classifier import Classifier
from pneumo.training.checkpoints import write_checkpoint

SIZE = 32  # of the checkpoint in conftest.py


def test_onnx_answers_what_the_checkpoint_answers_to_any_number_of_images(checkpoint: Path, exported: Path) -> None:
    network, images = open_network(exported), smooth_images(7, SIZE).numpy()
    classifier = Classifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    expected = score_plainly(classifier, images)
    assert np.ptp(expected[0][:, 1]) > 0.01  # it is not one answer to all
    assert np.ptp(expected[1]) > 0.01
    for count in (1, 2, 7):
        probability, unlike = network.score(images[:count])
        assert probability.dtype == unlike.dtype == np.dtype(np.float32)
        np.testing.assert_allclose(probability, expected[0][:count], atol=1e-5)
        np.testing.assert_allclose(unlike, expected[1][:count], rtol=1e-4)


def test_the_file_alone_suffices(checkpoint: Path, exported: Path) -> None:
    assert open_network(exported).rules == CheckpointNetwork(checkpoint).rules
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    known = {prop.key: prop.value for prop in model.metadata_props}
    assert known["architecture"] == "pneumo/xraychestnet"
    assert len(known["checkpoint_sha256"]) == 64
    assert "resize it to 36 x 36" in model.doc_string
    assert "Not a medical device" in model.doc_string
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "probability", "unlike"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_file_tells_nothing_of_the_machine(exported: Path) -> None:
    content = exported.read_bytes()
    assert str(Path(exporter.__file__).parents[2]).encode() not in content
    assert b"stack_trace" not in content


def test_a_pytorch_program_answers_the_same_and_the_terminal_has_what_is_of_use_only(
    checkpoint: Path, tmp_path: Path, export: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "network.pt2"
    assert export(checkpoint, "--output", path) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    assert "[torch" not in captured.out
    assert "Warning" not in captured.out
    assert captured.out.count("\n") < 15
    assert "no medical device" in captured.out
    program, network, images = ProgramNetwork(path), CheckpointNetwork(checkpoint), smooth_images(5, SIZE).numpy()
    assert program.rules == network.rules
    for count in (1, 5):
        np.testing.assert_allclose(program.score(images[:count])[0], network.score(images[:count])[0], atol=1e-6)
    assert str(Path(exporter.__file__).parents[2]).encode() not in path.read_bytes()
    with pytest.raises(ConfigError, match="programs of your own"):
        open_network(path)


def test_an_exported_network_is_used_without_pytorch(exported: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.png"
    film.write_bytes(encode_image(SMOOTH_IMAGES[0], "PNG"))
    code = f"""
import sys
import pneumo
print(sorted({{"torch", "numpy", "PIL"}} & set(sys.modules)))
model = pneumo.load_model({str(exported)!r})
import pneumo.inference.serve.app, pneumo.inference.serve.server
assert pneumo.inference.serve.server._open_explainer(model) is None
pneumo.inference.serve.app.make_app(model, None, ["localhost"])
print([prediction.predicted_class for prediction in model.predict({str(film)!r})])
print(sorted({{"torch", "lightning", "onnx"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, predicted, after = done.stdout.splitlines()
    assert before == after == "[]"
    assert predicted in ("['NORMAL']", "['PNEUMONIA']")
    assert "Serving without saliency maps" in done.stderr


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_checkpoint_without_ood_detector_can_be_exported(suffix: str, checkpoint: Path, tmp_path: Path) -> None:
    content = read_checkpoint(checkpoint)
    del content["outliers"]
    path, exported = tmp_path / "best.ckpt", tmp_path / f"network{suffix}"
    write_checkpoint(content, path)
    write_checked(CheckpointNetwork(path), path, smooth_images(5, SIZE).numpy(), exported)


def test_no_number_is_no_match() -> None:
    right = (np.full((2, 2), 0.5, np.float32), np.zeros(2, np.float32))
    wrong = (np.full((2, 2), np.nan, np.float32), np.zeros(2, np.float32))
    assert not compare(right, wrong).probability <= parity.ALLOWED.probability


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
def test_any_network_can_be_exported(architecture: str, size: int, flip: bool, classes: int, tmp_path: Path) -> None:
    checkpoint = write_untrained(tmp_path / "best.ckpt", architecture, size, flip, classes)
    network = CheckpointNetwork(checkpoint)
    for suffix in FORMATS:
        exported, _ = write_checked(network, checkpoint, smooth_images(5, size).numpy(), tmp_path / f"network{suffix}")
        assert exported.rules == network.rules
