from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.adaptation import adapt_checkpoint, select_images
from helpers.checkpoints import write_checkpoint

from pneumo.data.labelled_images import LabelledSet
from pneumo.data.selection import DataSelection
from pneumo.errors import ConfigError, DataError
from pneumo.inference.adapt.adapter import AdaptationOptions, run_adapt


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rule": "best"}, "--rule best"),
        ({"target": 0.9}, "--target 0.9"),
        ({"rule": "sensitivity", "target": 1.5}, "--target 1.5"),
        ({"width": 0.0}, "--width 0"),
    ],
)
def test_invalid_options_are_named(
    options: dict[str, Any], named: str, local_checkpoint: Path, local_images: LabelledSet, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=named):
        adapt_checkpoint(local_checkpoint, local_images, tmp_path / "new.ckpt", **options)
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_images_and_tables_are_not_overwritten(
    local_checkpoint: Path, local_images: LabelledSet, tmp_path: Path
) -> None:
    before = local_checkpoint.read_bytes()
    with pytest.raises(ConfigError, match=r"--output .* overwrite an input"):
        adapt_checkpoint(local_checkpoint, local_images, local_checkpoint)
    table = select_images(local_images).data[0].rename(tmp_path / "labels.ckpt")
    with pytest.raises(ConfigError, match=r"--output .* overwrite an input"):
        run_adapt(local_checkpoint, DataSelection([table]), table, None, AdaptationOptions(), None, "cpu")
    assert local_checkpoint.read_bytes() == before


@pytest.mark.parametrize(("source", "output"), [("network.onnx", "new.ckpt"), ("best.ckpt", "new.onnx")])
def test_exported_files_can_be_neither_input_nor_output(
    source: str, output: str, local_images: LabelledSet, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"\.onnx"):
        adapt_checkpoint(tmp_path / source, local_images, tmp_path / output)


def test_classifiers_of_three_classes_have_no_threshold_to_adapt(local_images: LabelledSet, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "best.ckpt", ("NORMAL", "BACTERIAL", "VIRAL"))
    with pytest.raises(ConfigError, match="NORMAL, BACTERIAL, VIRAL"):
        adapt_checkpoint(checkpoint, local_images, tmp_path / "new.ckpt")


@pytest.mark.parametrize("removed", ["NORMAL", "PNEUMONIA"])
@pytest.mark.parametrize("kept", [0, 9])
def test_too_few_patients_of_a_class_are_an_error(
    removed: str, kept: int, local_checkpoint: Path, local_images: LabelledSet, tmp_path: Path
) -> None:
    others = [image for image in local_images.images if image.label != removed]
    few = [image for image in local_images.images if image.label == removed][: 2 * kept]
    images = others + [replace(image, patient=str(index % 9)) for index, image in enumerate(few)]
    with pytest.raises(DataError, match=f"{2 * kept} readable {removed} images of {kept} patients"):
        adapt_checkpoint(local_checkpoint, replace(local_images, images=tuple(images)), tmp_path / "new.ckpt")


def test_exchanged_labels_are_an_error(local_checkpoint: Path, local_images: LabelledSet, tmp_path: Path) -> None:
    other = {"NORMAL": "PNEUMONIA", "PNEUMONIA": "NORMAL"}
    images = tuple(replace(image, label=other[image.label]) for image in local_images.images)
    with pytest.raises(DataError, match="exchanged"):
        adapt_checkpoint(local_checkpoint, replace(local_images, images=images), tmp_path / "new.ckpt")
