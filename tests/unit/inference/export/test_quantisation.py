from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.checkpoints import smooth_images, write_untrained
from onnx import numpy_helper

from pneumo.inference.export.exporter import LabelledImages
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.export.onnx_writer import NETWORK
from pneumo.inference.export.parity import write_checked
from pneumo.inference.export.quantisation import quantise
from pneumo.inference.export.writer import describe_network
from pneumo.inference.onnx_backend import OnnxNetwork
from pneumo.inference.predictor import open_network
from pneumo.inference.torch_backend import CheckpointNetwork
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.training.checkpoints import write_checkpoint

NAMES = ("two.onnx", "three.onnx")


@pytest.mark.usefixtures("written")
def test_int8_is_smaller_and_predicts_nearly_the_same(
    checkpoint: Path,
    exported: Path,
    phantoms: Path,
    tmp_path: Path,
    export: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "small.onnx"
    assert export(checkpoint, "--output", path, "--int8", "--data", phantoms) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    assert "32 test images" in captured.out
    assert path.stat().st_size < 0.3 * exported.stat().st_size
    network, original = open_network(path), open_network(exported)
    assert network.rules == original.rules
    assert onnx.load(path).doc_string == onnx.load(exported).doc_string
    images = LabelledImages(phantoms, {}, network.rules).load("train")[0]
    (probability, ood_score), (expected, expected_score) = network.score(images), original.score(images)
    logits, expected_logits = (np.log(each[:, 1] / each[:, 0]) for each in (probability, expected))
    errors = logits - expected_logits
    assert np.abs(errors).mean() < 0.1 * expected_logits.std()
    assert abs(errors.mean()) < 0.01 * expected_logits.std()  # the head's bias corrects the mean on calibration images
    limits = [np.quantile(scores, 0.99, method="higher") for scores in (ood_score, expected_score)]
    np.testing.assert_allclose(limits[0], limits[1], rtol=0.01)


def test_int8_files_have_the_outputs_of_their_source(
    checkpoint: Path, exported: Path, two_outputs: Path, tmp_path: Path
) -> None:
    metadata, images = describe_network(checkpoint, open_network(exported)), smooth_images(16, 32).numpy()
    for source, name in zip((two_outputs, exported), NAMES, strict=True):
        quantise(source, tmp_path / name, images, metadata)
    two, three = (onnxruntime.InferenceSession(tmp_path / name).run(None, {"image": images}) for name in NAMES)
    assert (len(two), len(three)) == (2, 3)
    for expected, actual in zip((*two, two[1]), three, strict=True):
        np.testing.assert_array_equal(actual, expected)
    for name in NAMES:
        np.testing.assert_array_equal(open_network(tmp_path / name).score(images)[1], two[1])


@pytest.mark.parametrize("flip", [False, True])
def test_a_head_whose_bias_is_all_zeros_can_be_quantised(flip: bool, tmp_path: Path) -> None:
    path = write_untrained(tmp_path / "best.ckpt", "pneumo/xraychestnet", 32, flip)
    content = read_checkpoint(path)
    content["state_dict"]["head.bias"].zero_()
    write_checkpoint(content, path)
    network, images = CheckpointNetwork(path), smooth_images(32, 32).numpy()
    write_checked(network, path, images[:4], tmp_path / "network.onnx")
    assert "head.bias" not in {tensor.name for tensor in onnx.load(tmp_path / "network.onnx").graph.initializer}
    quantise(tmp_path / "network.onnx", tmp_path / "small.onnx", images, describe_network(path, network))
    onnx.checker.check_model(onnx.load(tmp_path / "small.onnx"), full_check=True)
    (probability, _), (expected, _) = OnnxNetwork(tmp_path / "small.onnx").score(images), network.score(images)
    logits, expected_logits = (np.log(each[:, 1] / each[:, 0]) for each in (probability, expected))
    assert abs((logits - expected_logits).mean()) < 0.01 * expected_logits.std()  # on its calibration images


def test_nodes_of_the_network_have_a_prefix(exported: Path) -> None:
    nodes = {node.name: node for node in onnx.load(exported).graph.node}
    inside = {node.op_type for name, node in nodes.items() if name.startswith(NETWORK)}
    outside = {node.op_type for name, node in nodes.items() if not name.startswith(NETWORK)}
    assert {"Conv", "MaxPool"} <= inside
    assert not outside & {"Conv", "MaxPool"}
    assert {"Softmax", "Cast", "ReduceSum"} <= outside
    assert not inside & {"Softmax", "Cast", "ReduceSum"}


@pytest.mark.slow
def test_depthwise_weights_keep_8_bits(tmp_path: Path) -> None:
    checkpoint = write_untrained(tmp_path / "best.ckpt", "timm/tf_efficientnet_lite0", 64)
    network, images = CheckpointNetwork(checkpoint), smooth_images(64, 64).numpy()
    for suffix in FORMATS:  # raises an error if predictions differ
        write_checked(network, checkpoint, images[:4], tmp_path / f"network{suffix}")
    metadata = describe_network(checkpoint, network)
    quantise(tmp_path / "network.onnx", tmp_path / "small.onnx", images, metadata)
    weights = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "small.onnx").graph.initializer
    }
    layers = [values for values in weights.values() if values.dtype == np.int8 and values.ndim == 4]
    depthwise = [int(np.abs(values.astype(int)).max()) for values in layers if values.shape[1] == 1]
    others = [int(np.abs(values.astype(int)).max()) for values in layers if values.shape[1] > 1]
    assert (len(depthwise), len(others)) == (16, 33)
    assert max(others) <= 64 < min(depthwise)
    errors = OnnxNetwork(tmp_path / "small.onnx").score(images)[0] - network.score(images)[0]
    assert np.abs(errors.mean(0)).max() < 0.05  # the mean is corrected on these calibration images
