import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.adaptation import adapt_checkpoint, select_images
from helpers.checkpoints import smooth_images
from scipy.special import expit, logit
from starlette.testclient import TestClient

from pneumo.data.labelled_images import LabelledSet
from pneumo.data.selection import DataSelection
from pneumo.errors import ConfigError
from pneumo.inference.adapt.adapter import AdaptationOptions, run_adapt
from pneumo.inference.batch_inference import run_predict
from pneumo.inference.evaluate.caveats import assess
from pneumo.inference.export.parity import score_reference, write_checked
from pneumo.inference.export.torch_program import ProgramNetwork
from pneumo.inference.predictor import load_model, open_network
from pneumo.inference.serve.app import make_app
from pneumo.inference.torch_backend import CheckpointNetwork
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.checkpoint_writer import save_checkpoint
from pneumo.models.classifier import Classifier

SIZE = 32


def test_only_the_operating_point_changes_and_the_record_describes_it(local_checkpoint: Path, adapted: Path) -> None:
    before, after = read_checkpoint(local_checkpoint), read_checkpoint(adapted)
    record = after["adaptation"]
    assert all(torch.equal(tensor, after["state_dict"][name]) for name, tensor in before["state_dict"].items())
    changed = {"temperature", "intercept", "threshold", "margin"}
    assert {
        name for name, value in after["hyper_parameters"].items() if value != before["hyper_parameters"].get(name)
    } == (changed)
    assert record["after"] == {name: after["hyper_parameters"][name] for name in changed}
    assert record["before"] == {"temperature": 0.7, "intercept": 0.0, "threshold": 0.4, "margin": 0.3}
    assert (record["data"], record["images"], record["patients"], record["positives"]) == ("hospital", 80, 40, 32)
    assert (record["rule"], record["target"]) == ("smoothed", None)
    assert "patient 0" not in repr(record)
    assert record["metrics"]["before"]["auroc"] == record["metrics"]["after"]["auroc"]


def test_the_adapted_log_odds_are_scaled_and_shifted(
    local_checkpoint: Path, adapted: Path, local_images: LabelledSet
) -> None:
    files = [image.file for image in local_images.images]
    before, after = (
        np.array([each.logit_margin for each in load_model(path, "cpu").predict(files)])
        for path in (local_checkpoint, adapted)
    )
    point = read_checkpoint(adapted)["adaptation"]["after"]
    np.testing.assert_allclose(after, 0.7 * before / point["temperature"] + point["intercept"], atol=1e-4)


# onnxruntime's convolutions round differently from PyTorch's, with and without an adaptation.
@pytest.mark.parametrize(("suffix", "tolerance"), [(".onnx", 1e-5), (".pt2", 1e-6)])
def test_exported_files_predict_like_the_adapted_checkpoint(
    adapted: Path, tmp_path: Path, suffix: str, tolerance: float
) -> None:
    network, images = CheckpointNetwork(adapted), smooth_images(9, SIZE).numpy()
    exported, _ = write_checked(network, adapted, images, tmp_path / f"network{suffix}")
    probability = network.score(images)[0]
    reference = score_reference(Classifier.load_from_checkpoint(adapted).eval(), images)[0]
    assert np.ptp(reference[:, 1]) > 0.1
    np.testing.assert_allclose(probability, reference, atol=1e-5)  # batch normalization is folded
    np.testing.assert_allclose(exported.score(images)[0], probability, atol=tolerance, rtol=0)
    assert exported.rules == network.rules
    if not isinstance(exported, ProgramNetwork):
        assert exported.adaptation() == network.adaptation() == read_checkpoint(adapted)["adaptation"]


def test_the_served_probability_is_the_adapted_one(adapted: Path, local_images: LabelledSet) -> None:
    model, image = load_model(adapted, "cpu"), local_images.images[0].file
    client = TestClient(make_app(model, None, ["127.0.0.1"]), base_url="http://127.0.0.1:8000")
    reply = client.post("/predict", content=image.read_bytes(), headers={"Content-Type": "application/octet-stream"})
    (expected,) = model.predict(image)
    assert reply.json()["probability"] == pytest.approx(expected.positive_probability, abs=1e-6)
    assert reply.json()["predicted_class"] == expected.predicted_class


def test_predict_states_that_the_checkpoint_is_adapted(
    adapted: Path, local_checkpoint: Path, local_images: LabelledSet, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, stated in ((adapted, True), (local_checkpoint, False)):
        run_predict(path, [str(local_images.images[0].file)], None, None, None, None, "cpu")
        lines = [line for line in capsys.readouterr().err.splitlines() if "80 images of 40 patients" in line]
        assert len(lines) == stated
        assert all("threshold is 0." in line for line in lines)


def test_evaluations_state_that_the_checkpoint_is_adapted(adapted: Path, local_images: LabelledSet) -> None:
    evaluation = load_model(adapted, "cpu").evaluate(select_images(local_images).data)
    (verdict,) = [each for each in assess(evaluation) if each.check == "adapted"]
    assert "80 images of 40 patients" in verdict.message
    assert verdict.message in evaluation.to_html()


def test_unknown_patients_and_long_names_are_accepted(
    local_checkpoint: Path, local_images: LabelledSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tuple(replace(image, patient="") for image in local_images.images)
    paths = [select_images(replace(local_images, images=images[k::4])).data[0] for k in range(4)]
    paths = [path.rename(path.with_name(f"{k}{'x' * 200}.csv")) for k, path in enumerate(paths)]
    run_adapt(local_checkpoint, DataSelection(paths), tmp_path / "new.ckpt", None, AdaptationOptions(), None, "cpu")
    assert read_checkpoint(tmp_path / "new.ckpt")["adaptation"]["patients"] == 80
    assert "80 of 80 images is unknown" in " ".join(capsys.readouterr().err.split())


def test_an_adapted_checkpoint_is_adapted_from_its_original_operating_point(
    adapted: Path, local_images: LabelledSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again = read_checkpoint(adapted), adapt_checkpoint(adapted, local_images, tmp_path / "again.ckpt")
    assert "already adapted" in capsys.readouterr().err
    assert again["adaptation"]["before"] == first["adaptation"]["before"]
    for name, value in first["adaptation"]["after"].items():
        assert again["adaptation"]["after"][name] == pytest.approx(value, rel=1e-3), name
    for name, estimate in first["adaptation"]["metrics"]["before"].items():
        assert again["adaptation"]["metrics"]["before"][name] == pytest.approx(estimate, abs=1e-4), name


def test_the_terminal_and_json_outputs_agree(
    local_checkpoint: Path, local_images: LabelledSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    selection = select_images(local_images, "broken.png,NORMAL,patient 99")
    (selection.data[0].parent / "broken.png").write_text("no image")
    options = AdaptationOptions("sensitivity", 0.8, width=0.2)
    run_adapt(local_checkpoint, selection, tmp_path / "new.ckpt", tmp_path / "new.json", options, 16, "cpu")
    written, captured = json.loads((tmp_path / "new.json").read_text()), capsys.readouterr()
    assert (written["rule"], written["target"]) == ("sensitivity", 0.8)
    assert f"{written['after']['temperature']:.4f}" in captured.out
    assert f"{written['metrics']['after']['balanced_accuracy'][0]:.3f}" in captured.out
    widths = {each["criterion"]: each["width"] for each in written["images_needed"]}
    assert (widths["sensitivity"], widths["slope"]) == (0.2, 0.2)
    assert "1 file is unreadable: broken.png" in captured.err
    assert "The adaptation has 80 images" in written["warnings"][0]
    assert captured.err.splitlines()[-len(written["warnings"]) :] == written["warnings"]
    for text in ("uncertainty margin (logits)", "wanted width", "sigmoid(logit / temperature + intercept)"):
        assert text in " ".join(captured.out.split())


def test_a_planted_miscalibration_of_the_checkpoint_is_undone(
    local_checkpoint: Path, local_images: LabelledSet, tmp_path: Path
) -> None:
    """Labels drawn from the network's probabilities at temperature 3 and another prior."""
    files = [image.file for image in local_images.images]
    margin = np.array([each.logit_margin for each in load_model(local_checkpoint, "cpu").predict(files)])
    positive = np.random.default_rng(1).random(80) < expit(margin / 3 - 1)
    images = tuple(
        replace(image, label="PNEUMONIA" if value else "NORMAL", patient=str(index))
        for index, (image, value) in enumerate(zip(local_images.images, positive, strict=True))
    )
    content = adapt_checkpoint(local_checkpoint, replace(local_images, images=images), tmp_path / "new.ckpt")
    metrics = content["adaptation"]["metrics"]
    slope, intercept = (metrics["after"][f"calibration_{name}"] for name in ("slope", "intercept"))
    assert metrics["before"]["calibration_slope"][2] < 1
    assert slope[1] < 1 < slope[2]
    assert intercept[1] < 0 < intercept[2]


def test_altered_records_are_rejected(adapted: Path, tmp_path: Path) -> None:
    content = read_checkpoint(adapted)
    content["adaptation"]["images"] = "many"
    save_checkpoint(content, tmp_path / "altered.ckpt")
    with pytest.raises(ConfigError, match="adaptation"):
        open_network(tmp_path / "altered.ckpt")


def test_the_threshold_separates_the_images_of_the_fit_as_the_rule_requires(
    local_checkpoint: Path, local_images: LabelledSet, tmp_path: Path
) -> None:
    content = adapt_checkpoint(local_checkpoint, local_images, tmp_path / "new.ckpt", rule="specificity", target=0.9)
    predictions = load_model(tmp_path / "new.ckpt", "cpu").predict([image.file for image in local_images.images])
    pairs = list(zip(predictions, local_images.images, strict=True))
    negative = [prediction.predicted_class for prediction, image in pairs if image.label == "NORMAL"]
    assert 0.9 <= negative.count("NORMAL") / len(negative) < 0.93
    margin = content["hyper_parameters"]["margin"]
    distance = [
        abs(logit(each.positive_probability) - logit(content["hyper_parameters"]["threshold"])) for each, _ in pairs
    ]
    assert np.mean(np.array(distance) <= margin + 1e-4) == pytest.approx(0.1, abs=0.02)
