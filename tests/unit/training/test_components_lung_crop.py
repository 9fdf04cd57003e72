from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.commands import Compose

from pneumo.models.classifier import Classifier
from pneumo.training.lung_training import LungTraining, load_locator
from pneumo.training.run import run


@pytest.mark.parametrize("freeze", [False, True])
def test_a_run_with_a_crop_stores_the_trained_locator(
    freeze: bool, compose_run: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = partial(load_locator, settings=LungTraining(phantoms=8, steps=3, batch_size=4))
    monkeypatch.setattr("pneumo.training.components.load_locator", short)
    small = ("model=xraychestnet", f"model.freeze={str(freeze).lower()}", "model.lung_crop=32", "trainer.max_epochs=1")
    run(cfg := compose_run(*small))
    classifier = Classifier.load_from_checkpoint(Path(cfg.paths.run_dir) / "checkpoints" / "best.ckpt")
    assert classifier.backbone.crop is not None
    assert classifier.backbone.crop.size == 32
    expected = short(Path(cfg.paths.cache_dir)).state_dict()
    for name, value in classifier.backbone.crop.locator.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(value, expected[name])
