"""Fixtures: a small checkpoint and labelled images that it ranks better than chance."""

from pathlib import Path

import numpy as np
import pytest
from helpers.adaptation import adapt_checkpoint
from helpers.checkpoints import smooth_images, write_untrained
from helpers.damaged_images import encode_image

from pneumo.data.labelled_images import LabelledImage, LabelledSet
from pneumo.inference.predictor import load_model

SIZE = 32


@pytest.fixture(scope="session")
def local_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained(tmp_path_factory.mktemp("local") / "best.ckpt", "pneumo/xraychestnet", SIZE)


@pytest.fixture(scope="session")
def local_images(local_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> LabelledSet:
    """Create 80 images of 40 patients; the classes follow the network's output at another threshold, with noise."""
    folder, generator = tmp_path_factory.mktemp("site"), np.random.default_rng(0)
    for index, pixels in enumerate(smooth_images(80, SIZE).numpy()[:, 0]):
        (folder / f"{index:02}.png").write_bytes(encode_image(pixels, "PNG"))
    files = sorted(folder.iterdir())
    margin = np.array([each.logit_margin for each in load_model(local_checkpoint, "cpu").predict(files)])
    noisy = margin + generator.normal(0, margin.std(), 80)
    labels = np.where(noisy > np.quantile(noisy, 0.6), "PNEUMONIA", "NORMAL")
    images = tuple(
        LabelledImage(file, file.name, str(label), f"patient {index // 2}", "", "")
        for index, (file, label) in enumerate(zip(files, labels, strict=True))
    )
    return LabelledSet("hospital", images, (), ())


@pytest.fixture(scope="module")
def adapted(local_checkpoint: Path, local_images: LabelledSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapted") / "adapted.ckpt"
    adapt_checkpoint(local_checkpoint, local_images, path)
    return path
