from pathlib import Path

import pytest
import torch
from helpers.support import Compose

from pneumo.models import checkpoint_reader
from pneumo.models.classifier import Classifier
from pneumo.training.components import build
from pneumo.training.evaluation import _fit_ood_detector
from pneumo.training.run import run


@pytest.mark.parametrize("split", ["official", "patient"])
def test_the_tested_checkpoint_alone_tells_what_is_uncertain_and_what_is_unlike(
    split: str, compose_run: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = checkpoint_reader.read_tensors

    def counted(path: Path, checked: bool) -> object:
        read.append(path.name)
        return original(path, checked)

    monkeypatch.setattr(checkpoint_reader, "read_tensors", counted)
    run(compose_run("trainer.max_epochs=1", f"data.split={split}"))
    assert read == ["best.ckpt"] * 2  # to calibrate it, and by Lightning to test it
    best, last = (tmp_path / "run" / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    assert torch.load(best, weights_only=True)["outliers"].keys() == {"mean", "scale", "components"}
    assert "outliers" not in torch.load(last, weights_only=True)
    classifier = Classifier.load_from_checkpoint(best)
    assert classifier.hparams["margin"] > 0
    assert classifier.ood_detector is not None
    assert classifier.ood_detector.components.dtype == torch.float32
    assert Classifier.load_from_checkpoint(last).ood_detector is None


def test_a_shortened_run_looks_at_no_more_images(compose_run: Compose, tmp_path: Path) -> None:
    run(compose_run("trainer=smoke", "trainer.accelerator=cpu", "data.batch_size=4"))
    assert "outliers" not in torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)


def test_what_is_usual_is_kept_for_the_other_runs_of_a_frozen_backbone(
    compose_run: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for seed in (0, 1):
        run(compose_run("model=efficientnet_lite0", "trainer.max_epochs=1", f"seed={seed}", folder=f"run{seed}"))
    assert caplog.text.count("Looking at what is usual") == 2  # it begins, and is done
    found = [torch.load(tmp_path / f"run{seed}/checkpoints/best.ckpt", weights_only=True) for seed in (0, 1)]
    assert all(torch.equal(tensor, found[1]["outliers"][name]) for name, tensor in found[0]["outliers"].items())


def test_what_augmentation_made_usual_is_less_unlike(compose_run: Compose) -> None:
    def scale(zoom: float) -> torch.Tensor:
        """Give the scale of what is usual: the farther that goes, the smaller."""
        cfg = compose_run("augment=light", f"augment.zoom={zoom}")
        parts = build(cfg)
        parts.datamodule.open_images()
        return _fit_ood_detector(cfg, parts).scale

    ratio = scale(0.8) / scale(0.01)
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))  # the same films, but another limit
    assert ratio.mean() < 0.9
