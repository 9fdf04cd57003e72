"""A run on a folder tree with more classes than colours."""

from pathlib import Path

import numpy as np
import pytest
from helpers.commands import Compose
from omegaconf import OmegaConf
from PIL import Image

import pneumo
from pneumo.cli.commands import report
from pneumo.training.run import run

CLASSES = ("A", "B b", "C", "D", "E", "F", "G")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for label, name in enumerate(CLASSES):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 80, (48, 48)).astype(np.uint8)
                pixels[6 * label : 6 * label + 8] += 150
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{number}.png")
    return tmp_path / "data"


@pytest.mark.slow
def test_seven_classes_train_report_and_predict(root: Path, compose_run: Compose, tmp_path: Path) -> None:
    classes = f"data.classes=[{','.join(CLASSES)}]"
    cfg = compose_run(f"data.root={root}", classes, "model=efficientnet_lite0", "epochs=1", "figures=true")
    results = run(cfg)
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir()
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    assert (results["task"], results["threshold_rule"]) == ("multiclass", "likeliest")
    report([folder], card=True)
    card = (folder / "MODEL_CARD.md").read_text()
    assert "probabilities of `A`, `B b`, `C`, `D`, `E`, `F`, `G` |" in card
    assert not any(word in card for word in ("viral", "Kermany", "probability of pneumonia"))
    assert "the predicted class" in (folder / "report.html").read_text()
    (prediction,) = pneumo.load_model(folder / "checkpoints" / "best.ckpt").predict(root / "test" / "A" / "0.png")
    assert tuple(prediction.probability) == CLASSES
    assert sum(prediction.probability.values()) == pytest.approx(1, abs=1e-5)
