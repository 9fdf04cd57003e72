from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pneumo.data.index import Radiograph
from pneumo.errors import NonFiniteLossError
from pneumo.models.classifier import Batch, Classifier
from pneumo.models.hyperparameters import PredictionOptions
from pneumo.training import evaluation

CLASSES = ["NORMAL", "PNEUMONIA"]


def images(split: str) -> list[Radiograph]:
    return [Radiograph(f"{split}/{i}.jpeg", i % 2, "viral", str(i), split, 1, 1) for i in range(6)]


def write(folder: Path, test: torch.Tensor, val: torch.Tensor) -> dict[str, Any]:
    """Write the files of a run whose network gave these logits, (6, 2) each."""
    classifier = Classifier(
        "pneumo/xraychestnet", CLASSES, image_size=32, prediction=PredictionOptions(temperature=2.0)
    )
    answers: dict[str, Batch] = {
        name: {"index": torch.arange(6), "logits": logits} for name, logits in {"test": test, "val": val}.items()
    }
    classifier.outputs["test"] = answers["test"]
    datamodule = SimpleNamespace(splits={"test": images("test"), "val": images("val")}, classes=CLASSES)
    return evaluation.record_predictions(folder, answers["val"], datamodule, classifier)  # type: ignore[arg-type]


def test_files_have_the_margin_of_each_image(tmp_path: Path) -> None:
    logits = torch.tensor([[0.0, 60.0], [0.0, 80.0], [0.0, 70.0], [0.0, 90.0], [50.0, 0.0], [0.0, 100.0]])
    found = write(tmp_path, logits, -logits)
    lines = [line.split(",") for line in (tmp_path / "predictions.csv").read_text().splitlines()]
    assert lines[0] == ["path", "label", "probability", "prediction", "logit_margin"]
    assert [line[4] for line in lines[1:]] == ["30", "40", "35", "45", "-25", "50"]
    assert [float(line[2]) for line in lines[1:]] == pytest.approx([1, 1, 1, 1, np.exp(-25), 1])
    assert found["status"] == "done"
    # All positive images rank above all negative ones, though most probabilities are 1.
    assert found["test_auroc_ci_high"] == 1.0
    assert (tmp_path / "validation.csv").read_text().splitlines()[1].split(",")[4] == "-30"


@pytest.mark.parametrize("split", ["test", "val"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_names_its_image_and_writes_nothing(
    split: str, value: float, tmp_path: Path
) -> None:
    logits = {"test": torch.randn(6, 2), "val": torch.randn(6, 2)}
    logits[split][4, 1] = value
    with pytest.raises(NonFiniteLossError, match=rf"1 of 6 {split} images.*{split}/4\.jpeg"):
        write(tmp_path, logits["test"], logits["val"])
    assert list(tmp_path.iterdir()) == []
