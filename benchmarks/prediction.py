"""Prediction from image files: `pneumo predict`, a loop over single images, and one command per image.

    python benchmarks/prediction.py            64 phantoms: three minutes on two cores
    PNEUMO_DATA_ROOT=FOLDER python benchmarks/prediction.py --full

The network is EfficientNet-Lite0 at 192 pixels with flip_test, as in experiment=robust. Its weights are random, which
does not affect the speed. The plain loop reads and predicts one image at a time. Both loops are timed after the network
is loaded and one image is predicted; commands are timed from start to end. The full run uses the 624 test images.
The plain loop predicts 100 of them, and eight are predicted by one command each.
"""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import harness
import plain
import torch

COMMAND = (sys.executable, "-c", "from pneumo.cli import main; main()", "predict")


def write_checkpoint(path: Path) -> Path:
    """Write a checkpoint that `torch.load(weights_only=True)` can open."""
    from pneumo.models.classifier import Classifier
    from pneumo.training.checkpoints import write_checkpoint as write

    torch.manual_seed(0)
    preprocessing = {"image_size": 192, "crop_pct": 0.857}
    classifier = Classifier.from_hyperparameters(
        architecture="timm/tf_efficientnet_lite0", classes=["NORMAL", "PNEUMONIA"], **preprocessing, flip_test=True
    )
    content = {"state_dict": classifier.state_dict(), "hyper_parameters": dict(classifier.hparams)}
    write({**content, "pytorch-lightning_version": "2.6.0"}, path)
    return path


def loop(checkpoint: Path, images: list[Path]) -> float:
    """Measure a loop that predicts one image at a time."""
    from pneumo.data.radiograph import decode
    from pneumo.models.classifier import Classifier

    classifier = Classifier.load_from_checkpoint(checkpoint, weights_only=True).eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier.to(device)

    def predict(path: Path) -> float:
        image = torch.from_numpy(decode(path, classifier.input_format).copy()).to(device)
        with torch.inference_mode():
            return float(classifier.probability(classifier.predict_logits(image[None, None]))[0, 1])

    predict(images[0])
    return plain.images_per_second(lambda: len([predict(path) for path in images]))


def pneumo(checkpoint: Path, images: list[Path]) -> float:
    """Measure the loop of `pneumo predict`."""
    from pneumo import load_model

    model = load_model(checkpoint)

    def run(paths: list[Path]) -> int:
        return sum(1 for _ in model.predict(paths))

    run(images[:1])
    return plain.images_per_second(lambda: run(images))


def command(checkpoint: Path, images: list[Path], count: int) -> float:
    """Measure commands with `count` images each, including the start of Python and loading the network."""
    started = time.perf_counter()
    for first in range(0, len(images), count):
        paths = map(str, images[first : first + count])
        subprocess.run([*COMMAND, str(checkpoint), *paths], check=True, capture_output=True)
    return len(images) / (time.perf_counter() - started)


def main() -> None:
    """Measure all variants."""
    settings = harness.parse(str(__doc__), rounds=3)
    images = sorted((settings.root / "test").glob("*/*"))
    checkpoint = write_checkpoint(settings.out / "prediction.ckpt")
    loop_count = 100 if settings.full else 16
    variants: dict[str, harness.Variant] = {
        "loop over single images": partial(loop, checkpoint, images[:: max(1, len(images) // loop_count)][:loop_count]),
        "pneumo predict, its loop": partial(pneumo, checkpoint, images),
        "pneumo predict, the command": partial(command, checkpoint, images, len(images)),
        "one command per image": partial(command, checkpoint, images[: 8 if settings.full else 2], 1),
    }
    results = harness.alternate(variants, settings.rounds)
    harness.report("prediction", settings, "images/s", results, f"{len(images)} images")


if __name__ == "__main__":
    main()
