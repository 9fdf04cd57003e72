import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from untrained import films, write_untrained

from pneumo import cli
from pneumo.exporting import checked, command, latency
from pneumo.exporting.checked import FORMATS, write_checked
from pneumo.exporting.films import Films
from pneumo.exporting.formats import NETWORK, describe
from pneumo.exporting.parity import compare, score_plainly
from pneumo.exporting.program import ProgramNetwork
from pneumo.exporting.quantisation import quantise
from pneumo.models.classifier import Classifier
from pneumo.prediction.checkpoint import CheckpointNetwork
from pneumo.prediction.exported import OnnxNetwork
from pneumo.prediction.network import Images, Scores, open_network

SIZE = 32


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pneumo", "export", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained(tmp_path_factory.mktemp("checkpoint") / "best.ckpt", "pneumo/xraychestnet", SIZE)


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes, of which no test may change anything."""
    path = tmp_path_factory.mktemp("exported") / "network.onnx"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(latency, "ROUNDS", (1, 1))
        assert run(patch, checkpoint, "--output", path) == 0
    return path


def test_onnx_answers_what_the_checkpoint_answers_to_any_number_of_images(checkpoint: Path, exported: Path) -> None:
    network, images = open_network(exported), films(7, SIZE).numpy()
    classifier = Classifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    expected = score_plainly(classifier, images)
    assert np.ptp(expected[0][:, 1]) > 0.01  # it is not one answer to all
    assert np.ptp(expected[1]) > 0.01
    for count in (1, 2, 7):
        probability, unlike = network.score(images[:count])
        assert (probability.dtype, unlike.dtype) == (np.float32, np.float32)
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
    assert str(Path(command.__file__).parents[2]).encode() not in content
    assert b"stack_trace" not in content


def test_a_pytorch_program_answers_the_same_and_the_terminal_has_what_is_of_use_only(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(latency, "ROUNDS", (1, 1))
    path = tmp_path / "new" / "network.pt2"
    assert run(monkeypatch, checkpoint, "--output", path) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    assert "[torch" not in captured.out
    assert "Warning" not in captured.out
    assert captured.out.count("\n") < 15
    assert "no medical device" in captured.out
    program, network, images = ProgramNetwork(path), CheckpointNetwork(checkpoint), films(5, SIZE).numpy()
    assert program.rules == network.rules
    for count in (1, 5):
        np.testing.assert_allclose(program.score(images[:count])[0], network.score(images[:count])[0], atol=1e-6)
    assert str(Path(command.__file__).parents[2]).encode() not in path.read_bytes()
    with pytest.raises(ValueError, match="programs of your own"):
        open_network(path)


def test_an_exported_network_is_used_without_pytorch(exported: Path) -> None:
    code = f"""
import sys
from pathlib import Path
import numpy as np
from pneumo.prediction.exported import OnnxNetwork
from pneumo.prediction.network import Images, Scores, open_network
network = open_network(Path({str(exported)!r}))
print(network.rules.apply(*network.score(np.zeros((2, 1, {SIZE}, {SIZE}), np.uint8)))[0].called)
print(sorted({{"torch", "lightning", "onnx"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] in ("NORMAL", "PNEUMONIA")
    assert done.stdout.splitlines()[1] == "[]"
    assert done.stderr == ""


@pytest.fixture
def _written(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what is exported already, which takes seconds otherwise."""
    monkeypatch.setattr(checked, "write_network", lambda *arguments: shutil.copy(exported, arguments[-1]))
    monkeypatch.setattr(latency, "ROUNDS", (1, 1))


@pytest.mark.usefixtures("_written")
def test_a_file_that_answers_otherwise_is_not_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Wrong(OnnxNetwork):
        def score(self, image: Images) -> Scores:
            probability, unlike = super().score(image)
            return probability + np.float32(2e-4), unlike

    monkeypatch.setitem(FORMATS, ".onnx", Wrong)
    assert run(monkeypatch, checkpoint, "--output", tmp_path / "network.onnx") == 1
    assert "answers otherwise than its checkpoint" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_written")
def test_int8_is_smaller_and_answers_nearly_the_same(
    checkpoint: Path,
    exported: Path,
    phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "small.onnx"
    assert run(monkeypatch, checkpoint, "--output", path, "--int8", "--data", phantoms) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    assert "32 test films" in captured.out
    assert path.stat().st_size < 0.3 * exported.stat().st_size
    network, whole = open_network(path), open_network(exported)
    assert network.rules == whole.rules
    assert onnx.load(path).doc_string == onnx.load(exported).doc_string
    images = Films(phantoms, {}, network.rules).load("train")[0]
    (probability, unlike), (exact, as_unlike) = network.score(images), whole.score(images)
    logits, right = (np.log(each[:, 1] / each[:, 0]) for each in (probability, exact))
    assert np.abs(logits - right).mean() < 0.1 * right.std()
    assert abs((logits - right).mean()) < 0.01 * right.std()  # these films calibrated it: the head takes up their mean
    limits = [np.quantile(scores, 0.99, method="higher") for scores in (unlike, as_unlike)]
    np.testing.assert_allclose(*limits, rtol=0.01)


def test_nodes_of_the_network_are_told_from_those_around_it(exported: Path) -> None:
    nodes = {node.name: node for node in onnx.load(exported).graph.node}
    inside = {node.op_type for name, node in nodes.items() if name.startswith(NETWORK)}
    outside = {node.op_type for name, node in nodes.items() if not name.startswith(NETWORK)}
    assert {"Conv", "MaxPool"} <= inside
    assert not outside & {"Conv", "MaxPool"}
    assert {"Softmax", "Cast", "ReduceSum"} <= outside
    assert not inside & {"Softmax", "Cast", "ReduceSum"}


def test_no_number_is_no_match() -> None:
    right = (np.full((2, 2), 0.5, np.float32), np.zeros(2, np.float32))
    wrong = (np.full((2, 2), np.nan, np.float32), np.zeros(2, np.float32))
    assert not compare(right, wrong).probability <= checked.ALLOWED.probability


@pytest.mark.parametrize("damage", ["cut", "zeros", "text", "empty"])
def test_a_damaged_file_is_a_users_mistake(
    damage: str, exported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content, path = exported.read_bytes(), tmp_path / "network.onnx"
    kinds = {"cut": content[: len(content) // 2], "zeros": bytes(1000), "text": b"no network", "empty": b""}
    path.write_bytes(kinds[damage])
    with pytest.raises(ValueError, match="network") as error:
        open_network(path)
    assert len(str(error.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_a_network_of_others_is_refused(exported: Path, tmp_path: Path) -> None:
    model, path = onnx.load(exported), tmp_path / "other.onnx"
    del model.metadata_props[:]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="not one that this version of pneumo exported"):
        open_network(path)


def test_without_onnxruntime_it_says_what_to_install(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install 'pneumo\[export\]'"):
        open_network(exported)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "network.h5"], "must end in .onnx"),
        (["--output", "small.onnx", "--int8"], "--data ROOT"),
        (["--output", "small.pt2", "--int8", "--data", "."], "--int8 is for ONNX"),
        (["--output", "x.onnx", "--data", "nowhere"], "--data nowhere does not exist"),
        (["--output", "folder.onnx"], "is a folder"),
        (["--output", "file/network.onnx"], "cannot be written"),
    ],
)
def test_mistakes_are_told_before_the_work(
    options: list[str],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.onnx").mkdir()
    Path("file").touch()
    assert run(monkeypatch, checkpoint, *options) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1


def test_what_is_no_checkpoint_is_refused(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, exported, "--output", tmp_path / "again.onnx") == 1
    assert "cannot be read as a checkpoint" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert run(monkeypatch, checkpoint, "--output", tmp_path / "network.onnx") == 1
    assert "needs onnxscript" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "size", "flip", "classes"),
    [
        ("timm/tf_efficientnet_lite0", 64, True, 2),
        ("torchvision/resnext50_32x4d", 64, False, 2),
        ("torchvision/googlenet", 64, False, 3),
        ("torchvision/vgg16", 32, False, 2),
        ("timm/vit_tiny_patch16_224", 224, False, 2),
    ],
)
def test_any_network_can_be_exported(architecture: str, size: int, flip: bool, classes: int, tmp_path: Path) -> None:
    checkpoint = write_untrained(tmp_path / "best.ckpt", architecture, size, flip, classes)
    network = CheckpointNetwork(checkpoint)
    for suffix in FORMATS:
        exported, _ = write_checked(network, checkpoint, films(5, size).numpy(), tmp_path / f"network{suffix}")
        assert exported.rules == network.rules


@pytest.mark.slow
def test_int8_spares_depthwise_weights(tmp_path: Path) -> None:
    checkpoint = write_untrained(tmp_path / "best.ckpt", "timm/tf_efficientnet_lite0", 64)
    network, images = CheckpointNetwork(checkpoint), films(64, 64).numpy()
    write_checked(network, checkpoint, images[:4], tmp_path / "network.onnx")
    metadata = describe(checkpoint, network.rules)
    quantise(tmp_path / "network.onnx", tmp_path / "small.onnx", images, metadata)
    weights = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "small.onnx").graph.initializer
    }
    layers = [values for values in weights.values() if values.dtype == np.int8 and values.ndim == 4]
    depthwise = [int(np.abs(values.astype(int)).max()) for values in layers if values.shape[1] == 1]
    others = [int(np.abs(values.astype(int)).max()) for values in layers if values.shape[1] > 1]
    assert (len(depthwise), len(others)) == (16, 33)
    assert max(others) <= 64 < min(depthwise)
    far = OnnxNetwork(tmp_path / "small.onnx").score(images)[0] - network.score(images)[0]
    assert np.abs(far.mean(0)).max() < 0.05  # these films calibrated it
