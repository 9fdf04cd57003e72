from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import Compose

from pneumo.common.input_format import InputFormat
from pneumo.common.tensor_files import read_tensors
from pneumo.data.index import Radiograph
from pneumo.errors import NonFiniteLossError
from pneumo.models import checkpoint_reader
from pneumo.models.classifier import Batch, Classifier
from pneumo.models.hyperparameters import PredictionOptions
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.results import read_finished
from pneumo.training import evaluation
from pneumo.training.components import build
from pneumo.training.evaluation import _fit_ood_detector
from pneumo.training.run import run


@pytest.mark.parametrize("split", ["official", "patient"])
def test_only_the_tested_checkpoint_has_margin_and_ood_detector(
    split: str, compose_run: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: Path, checked: bool) -> object:
        read.append(path.name)
        return read_tensors(path, checked)

    monkeypatch.setattr(checkpoint_reader, "read_tensors", counted)
    run(compose_run("trainer.max_epochs=1", f"data.split={split}"))
    assert read == ["best.ckpt"] * 3  # for calibration, in Lightning's test, and to add the internal test
    best, last = (tmp_path / "run" / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    assert torch.load(best, weights_only=True)["outliers"].keys() == {"mean", "scale", "components"}
    assert "outliers" not in torch.load(last, weights_only=True)
    classifier = Classifier.load_from_checkpoint(best)
    _check_internal_test(classifier, tmp_path / "run")
    assert classifier.hparams["margin"] > 0
    assert classifier.ood_detector is not None
    assert classifier.ood_detector.components.dtype == torch.float32
    assert Classifier.load_from_checkpoint(last).ood_detector is None


def test_a_shortened_run_fits_no_ood_detector(compose_run: Compose, tmp_path: Path) -> None:
    run(compose_run("trainer=smoke", "trainer.accelerator=cpu", "data.batch_size=4"))
    assert "outliers" not in torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)


def test_ood_features_of_a_frozen_backbone_are_cached_for_other_runs(
    compose_run: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for seed in (0, 1):
        run(compose_run("model=efficientnet_lite0", "trainer.max_epochs=1", f"seed={seed}", folder=f"run{seed}"))
    assert caplog.text.count("Fitting the OOD detector") == 2  # one line at the start, one at the end
    checkpoints = [torch.load(tmp_path / f"run{seed}/checkpoints/best.ckpt", weights_only=True) for seed in (0, 1)]
    assert all(
        torch.equal(tensor, checkpoints[1]["outliers"][name]) for name, tensor in checkpoints[0]["outliers"].items()
    )


def test_stronger_augmentation_lowers_ood_scores(compose_run: Compose) -> None:
    def scale(zoom: float) -> torch.Tensor:
        """Return the scale of the OOD detector: the higher its limit, the smaller the scale."""
        cfg = compose_run("augment=light", f"augment.zoom={zoom}")
        components = build(cfg)
        components.datamodule.open_images()
        return _fit_ood_detector(cfg, components).scale

    ratio = scale(0.8) / scale(0.01)
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))  # the same images, but another limit
    assert ratio.mean() < 0.9


CLASSES = ["NORMAL", "PNEUMONIA"]


def images(split: str) -> list[Radiograph]:
    return [Radiograph(f"{split}/{i}.jpeg", i % 2, "viral", str(i), split, 1, 1) for i in range(6)]


def write_files(folder: Path, test: torch.Tensor, val: torch.Tensor) -> dict[str, Any]:
    """Write the prediction files of a run with these logits, (6, 2) each."""
    classifier = Classifier(
        "pneumo/xraychestnet", CLASSES, InputFormat(32), prediction=PredictionOptions(temperature=2.0)
    )
    outputs: dict[str, Batch] = {
        name: {"index": torch.arange(6), "logits": logits} for name, logits in {"test": test, "val": val}.items()
    }
    classifier.outputs["test"] = outputs["test"]
    datamodule = SimpleNamespace(
        splits={"test": images("test"), "val": images("val")}, classes=CLASSES, extra_columns=None
    )
    components: Any = SimpleNamespace(datamodule=datamodule, classifier=classifier)
    return evaluation.record_predictions(folder, outputs["val"], components)


def test_files_contain_the_margin_of_each_image(tmp_path: Path) -> None:
    logits = torch.tensor([[0.0, 60.0], [0.0, 80.0], [0.0, 70.0], [0.0, 90.0], [50.0, 0.0], [0.0, 100.0]])
    results = write_files(tmp_path, logits, -logits)
    lines = [line.split(",") for line in (tmp_path / "predictions.csv").read_text().splitlines()]
    assert lines[0] == ["path", "label", "probability", "prediction", "logit_margin"]
    assert [line[4] for line in lines[1:]] == ["30", "40", "35", "45", "-25", "50"]
    assert [float(line[2]) for line in lines[1:]] == pytest.approx([1, 1, 1, 1, np.exp(-25), 1])
    assert results["status"] == "done"
    # All positive images rank above all negative ones, although most probabilities round to 1.
    assert results["test_auroc_ci_high"] == 1.0
    assert (tmp_path / "validation.csv").read_text().splitlines()[1].split(",")[4] == "-30"


@pytest.mark.parametrize("split", ["test", "val"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_output_raises_an_error_with_its_image_and_writes_nothing(
    split: str, value: float, tmp_path: Path
) -> None:
    logits = {"test": torch.randn(6, 2), "val": torch.randn(6, 2)}
    logits[split][4, 1] = value
    with pytest.raises(NonFiniteLossError, match=rf"1 of 6 {split} images.*{split}/4\.jpeg"):
        write_files(tmp_path, logits["test"], logits["val"])
    assert list(tmp_path.iterdir()) == []


def _check_internal_test(classifier: Classifier, folder: Path) -> None:
    """Compare the internal test in a checkpoint with predictions.csv."""
    recorded = read_predictions(folder, read_finished(folder))
    assert classifier.internal_test is not None
    margin = classifier.internal_test["margin"].double().numpy() / classifier.hparams["temperature"]
    assert recorded.margin is not None
    assert margin == pytest.approx(recorded.margin, abs=1e-4)
    assert classifier.internal_test["label"].tolist() == recorded.label.tolist()
    assert classifier.internal_test["patient"].tolist() == recorded.clusters.tolist()
