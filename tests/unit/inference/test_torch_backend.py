import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import SIZE, smooth_images
from helpers.commands import Run
from helpers.damaged_images import encode_image
from helpers.ensembles import NAME, write_members
from scipy.special import expit, logit
from starlette.testclient import TestClient

import pneumo
from pneumo.errors import ConfigError
from pneumo.inference.ensemble_writer import write_ensemble
from pneumo.inference.explain.overlays import Explainer
from pneumo.inference.explain.saliency import SaliencyMapper
from pneumo.inference.predictor import load_model, open_network
from pneumo.inference.serve.app import make_app
from pneumo.inference.torch_backend import CheckpointNetwork
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.checkpoint_writer import save_checkpoint

TOLERANCE = 1e-6
IMAGES = smooth_images(24, SIZE).numpy()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    for index, pixels in enumerate(IMAGES[:, 0]):
        (folder / f"{index:02}.png").write_bytes(encode_image(np.kron(pixels, np.ones((2, 2), np.uint8)), "PNG"))
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def mean(members: list[Path], files: list[Path]) -> np.ndarray:
    """Return the mean of the members' probabilities of pneumonia for each file."""
    first, second = (
        np.array([each.positive_probability for each in load_model(path, "cpu").predict(files)]) for path in members
    )
    assert np.abs(first - second).max() > 0.1
    mean: np.ndarray = (first + second) / 2
    return mean


def test_a_network_scores_the_mean_of_its_members(members: list[Path], ensemble: Path) -> None:
    network, parts = open_network(ensemble), [open_network(path).score(IMAGES) for path in members]
    for output, first, second in zip(network.score(IMAGES), *parts, strict=True):
        assert output.dtype == np.float32
        np.testing.assert_allclose(output, (first.astype(np.float64) + second) / 2, atol=TOLERANCE, rtol=1e-6)
    assert network.rules.name == NAME
    assert network.rules.threshold == pytest.approx(0.45, abs=1e-7)
    assert network.rules.margin == pytest.approx(0.35)
    assert network.rules.has_ood_detector
    assert network.rules.input_format == open_network(members[0]).rules.input_format


def test_predict_writes_the_mean(ensemble: Path, files: list[Path], mean: np.ndarray, tmp_path: Path, run: Run) -> None:
    assert run(ensemble, files[0].parent, "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv")[0] == 0
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["network"] == NAME
    assert content["threshold"] == pytest.approx(0.45, abs=1e-7)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for records in (content["predictions"], rows):
        np.testing.assert_allclose([float(each["probability"]) for each in records], mean, atol=TOLERANCE, rtol=0)
    assert [each["predicted_class"] for each in rows] == [("NORMAL", "PNEUMONIA")[int(p > 0.45)] for p in mean]
    assert [each["uncertain"] for each in rows] == [
        str(bool(abs(logit(p) - logit(0.45)) <= 0.35)).lower() for p in mean
    ]
    assert {each["uncertain"] for each in rows} == {"true", "false"}


def test_evaluations_and_comparisons_use_the_mean(
    members: list[Path], ensemble: Path, files: list[Path], mean: np.ndarray
) -> None:
    table = files[0].parent.with_suffix(".csv")
    rows = [f"{file},{('NORMAL', 'PNEUMONIA')[index % 2]},{index}" for index, file in enumerate(files)]
    table.write_text("\n".join(["file,label,patient", *rows]))
    model, member = load_model(ensemble, "cpu"), load_model(members[0], "cpu")
    evaluation = model.evaluate(table, against=member)
    np.testing.assert_allclose(evaluation.cohort.predictions.positive_probability, mean, atol=TOLERANCE, rtol=0)
    assert evaluation.to_dict()["network"] == NAME
    assert NAME in evaluation.to_html()
    reverse = member.evaluate(table, against=model)
    assert evaluation.comparison is not None
    assert reverse.comparison is not None
    for metric, paired in evaluation.comparison.differences.items():
        other = reverse.comparison.differences[metric].difference
        assert paired.difference.value == pytest.approx(-other.value)


def test_the_page_serves_the_mean_and_a_saliency_map(ensemble: Path, files: list[Path], mean: np.ndarray) -> None:
    model = load_model(ensemble, "cpu")
    client = TestClient(make_app(model, Explainer(model.network), ["*"]))
    assert NAME in client.get("/").text
    for file, expected in zip(files[:3], mean, strict=False):
        headers = {"Content-Type": "application/octet-stream"}
        reply = client.post("/predict", content=file.read_bytes(), headers=headers).json()
        assert reply["probability"] == pytest.approx(expected, abs=TOLERANCE)
        assert reply["map"].startswith("data:image/png")


def test_the_internal_test_is_the_mean_of_the_members(members: list[Path], ensemble: Path) -> None:
    tests = [open_network(path).internal_test() for path in members]
    found, probabilities = open_network(ensemble).internal_test(), [test.probability for test in tests if test]
    assert found is not None
    assert found.odds is not None
    np.testing.assert_allclose(found.probability, np.mean(probabilities, axis=0), atol=1e-7)
    np.testing.assert_allclose(expit(found.odds), found.probability, atol=1e-6)
    assert found.predicted.tolist() == (found.probability[:, 1] > 0.45).tolist()
    assert tests[0] is not None
    assert (found.label.tolist(), found.patients) == (tests[0].label.tolist(), tests[0].patients)


@pytest.mark.parametrize("key", ["label", "patient", None])
def test_different_internal_tests_are_not_combined(key: str | None, members: list[Path], tmp_path: Path) -> None:
    content = read_checkpoint(members[1])
    if key is None:
        del content["internal_test"]
    else:
        content["internal_test"][key] = content["internal_test"][key].flip(0)
    save_checkpoint(content, tmp_path / "other.ckpt")
    write_ensemble([members[0], tmp_path / "other.ckpt"], tmp_path / "ensemble.ckpt")
    assert open_network(tmp_path / "ensemble.ckpt").internal_test() is None


@pytest.mark.parametrize("method", ["hirescam", "gradcam"])
def test_saliency_maps_are_scaled_means(method: str, members: list[Path], ensemble: Path, files: list[Path]) -> None:
    maps = [load_model(path, "cpu").explain(files[0], method).input_saliency for path in members]
    found = load_model(ensemble, "cpu").explain(files[0], method)
    expected = (maps[0] + maps[1]) / 2
    assert np.abs(maps[0] - maps[1]).max() > 0.1
    np.testing.assert_allclose(found.input_saliency, expected / expected.max(), atol=1e-5)
    assert found.input_saliency.max() == 1


def test_three_classes(tmp_path: Path, files: list[Path]) -> None:
    paths = write_members(tmp_path, classes=3)
    write_ensemble(paths, tmp_path / "ensemble.ckpt")
    model, networks = load_model(tmp_path / "ensemble.ckpt", "cpu"), [CheckpointNetwork(path) for path in paths]
    expected = np.mean([network.score(IMAGES)[0] for network in networks], axis=0)
    np.testing.assert_allclose(model.network.score(IMAGES)[0], expected, atol=TOLERANCE, rtol=0)
    assert model.network.internal_test() is None
    # The explained class is the predicted one of the ensemble, which differs from that of a member.
    classes = [network.score(IMAGES)[0].argmax(1) for network in networks]
    index = int(np.flatnonzero(classes[0] != classes[1])[0])
    target = torch.tensor([int(expected[index].argmax())])
    image = torch.from_numpy(IMAGES[index : index + 1])
    maps = [SaliencyMapper(network.classifiers[0])(image, target) for network in networks]
    mean_map = torch.stack(maps).mean(0)
    found = model.network.explainer("hirescam")(image.numpy())
    np.testing.assert_allclose(found, mean_map / mean_map.max(), atol=1e-5)
    assert model.explain(files[index]).target in model.rules.classes


def test_a_wrong_ood_detector_of_a_member_is_reported(members: list[Path], tmp_path: Path) -> None:
    content = read_checkpoint(members[1])
    content["outliers"] = {name: tensor[..., :-1].clone() for name, tensor in content["outliers"].items()}
    save_checkpoint(content, tmp_path / "other.ckpt")
    write_ensemble([members[0], tmp_path / "other.ckpt"], tmp_path / "ensemble.ckpt")
    with pytest.raises(ConfigError, match=r"ensemble\.ckpt is damaged .*OOD detector"):
        open_network(tmp_path / "ensemble.ckpt")


def test_members_without_calibration(members: list[Path], tmp_path: Path, files: list[Path]) -> None:
    content = read_checkpoint(members[1])
    del content["outliers"]
    content["hyper_parameters"]["margin"] = None
    save_checkpoint(content, tmp_path / "other.ckpt")
    write_ensemble([members[0], tmp_path / "other.ckpt"], tmp_path / "ensemble.ckpt")
    (prediction,) = pneumo.load_model(tmp_path / "ensemble.ckpt", "cpu").predict(files[0])
    assert (prediction.uncertain, prediction.ood_score) == (None, None)


def test_missing_weights_of_a_member_are_reported(members: list[Path], tmp_path: Path) -> None:
    content = read_checkpoint(members[1])
    del content["state_dict"]["head.bias"]
    save_checkpoint(content, tmp_path / "other.ckpt")
    write_ensemble([members[0], tmp_path / "other.ckpt"], tmp_path / "ensemble.ckpt")
    with pytest.raises(ConfigError, match=r"ensemble\.ckpt cannot be loaded as a classifier.*head\.bias"):
        open_network(tmp_path / "ensemble.ckpt")
