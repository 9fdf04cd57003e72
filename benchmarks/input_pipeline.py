"""Images per second of the input pipeline, compared with ImageFolder (PIL) and torchvision's decoder.

    python benchmarks/input_pipeline.py            phantoms and enlarged copies of them
    PNEUMO_DATA_ROOT=FOLDER python benchmarks/input_pipeline.py --full

The first pass and later epochs are measured separately. Every implementation decodes with one worker per core and
yields batches of 32 images of 224 pixels. ImageFolder yields three normalized float32 channels, as is common. The
others yield one uint8 channel, which the model expands and normalizes on its device.

The full run measures the files in PNEUMO_DATA_ROOT. If PNEUMO_ORIGINALS is set to a folder of original files
(FOLDER/CLASS/*), it measures these too. Each is linked several times, so that the start of the workers has little
weight.
"""

import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import harness
import plain
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

SIZE = 224


class TorchvisionFolder(Dataset[tuple[Tensor, int]]):
    """ImageFolder with torchvision's decoder in grayscale, resized by torch."""

    def __init__(self, root: Path) -> None:
        """List the images of a folder."""
        self.samples = plain.folder(root, SIZE).samples

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a decoded image and its label."""
        from torchvision.io import ImageReadMode, decode_image
        from torchvision.transforms.v2.functional import resize

        path, label = self.samples[index]
        return resize(decode_image(path, ImageReadMode.GRAY), [SIZE, SIZE], antialias=True), label


def loop(root: Path, decoder: str, later: bool) -> float:
    """Measure one epoch of ImageFolder: the first, or a later one with running workers."""
    from pneumo.common.hardware import count_cores

    data = plain.folder(root, SIZE) if decoder == "PIL" else TorchvisionFolder(root)
    loader = plain.loader(data, count_cores(), shuffle=True)
    if later:
        list(loader)
    return plain.images_per_second(lambda: sum(len(label) for _, label in loader))


def pneumo(root: Path, later: bool) -> float:
    """Measure pneumo's first pass, including reading and decoding, or a later epoch."""
    from pneumo.data.augmentation import Augmentation
    from pneumo.data.datamodule import ChestXrayDataModule

    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "data"
        for split in ("train", "test"):
            (tree / split).parent.mkdir(parents=True, exist_ok=True)
        (tree / "train").symlink_to(root.resolve())
        for kind in sorted(path.name for path in root.iterdir()):  # val and test need only one image each
            for split in ("val", "test"):
                (tree / split / kind).mkdir(parents=True)
                shutil.copy(next((root / kind).iterdir()), tree / split / kind)
        data = ChestXrayDataModule(
            str(tree),
            sorted(path.name for path in root.iterdir()),
            task="pneumonia",
            split="official",
            val_fraction=0.1,
            folds=5,
            fold=0,
            image_size=SIZE,
            crop_pct=1.0,
            batch_size=32,
            num_workers=None,
            seed=0,
            cache=True,
            cache_dir=f"{folder}/cache",
            augmentation=Augmentation(0, 0, 0, 0, 0, 0),
            pin_memory=torch.cuda.is_available(),
        )
        data.setup()

        def epoch() -> int:
            data.open_images()
            return sum(len(batch["label"]) for batch in data.train_dataloader())

        if later:
            epoch()
        return plain.images_per_second(epoch)


def write_enlarged(root: Path, folder: Path, size: int, copies: int) -> Path:
    """Write enlarged JPEG copies of phantoms as a substitute for original files."""
    for path in sorted(root.glob("*/*.jpeg"))[:64]:
        image = Image.open(path).resize((size, size * 3 // 4), Image.Resampling.BICUBIC)
        for copy in range(copies):
            target = folder / path.parent.name / f"{copy}-{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            image.save(target, quality=90)
    return folder


def link_repeatedly(root: Path, folder: Path, copies: int) -> Path:
    """Link each file several times."""
    for path in sorted(path for path in root.glob("*/*") if path.is_file()):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        for copy in range(copies):
            (folder / path.parent.name / f"{copy}-{path.name}").symlink_to(path.resolve())
    return folder


def measure(name: str, root: Path, settings: harness.Settings) -> None:
    """Measure the first pass and later epochs."""
    images = sum(1 for _ in root.glob("*/*"))
    for later in (False, True):
        variants: dict[str, harness.Variant] = {
            "ImageFolder, PIL": partial(loop, root, "PIL", later),
            "torchvision decode": partial(loop, root, "torchvision", later),
            "pneumo": partial(pneumo, root, later),
        }
        rates = harness.alternate(variants, settings.rounds)
        epochs = "later epochs" if later else "first pass"
        note = f"{images:,} images, {epochs}, one worker per core"
        note += "; pneumo needs no workers" if later else ""
        harness.report(f"input_pipeline-{name}-{epochs.replace(' ', '_')}", settings, "images/s", rates, note)


def main() -> None:
    """Measure small and large files."""
    settings = harness.parse(str(__doc__))
    measure("224", settings.root / "train", settings)
    with tempfile.TemporaryDirectory() as folder:
        if settings.full and (originals := os.environ.get("PNEUMO_ORIGINALS")):
            measure("originals", link_repeatedly(Path(originals), Path(folder), 8), settings)
        else:
            measure("large", write_enlarged(settings.root / "train", Path(folder), 1400, 4), settings)


if __name__ == "__main__":
    main()
