"""Films to answers: `pneumo predict` against a loop over single films, and against a command for each film.

    python benchmarks/prediction.py            64 phantoms: three minutes on two cores
    PNEUMO_DATA_ROOT=FOLDER python benchmarks/prediction.py --full

EfficientNet-Lite0 at 192 pixels, with mirror images, as experiment=robust trains it; its weights are random, which does
not change the speed. The loop is a plain one: read a film, answer to it, take the next. It and pneumo's own
loop are timed once the network is loaded and one film is answered; the commands from start to end. The full run takes
the 624 test images; the loop 100 of them, and eight get a command each.
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
    """Write a checkpoint, as `torch.load(weights_only=True)` opens it."""
    from pneumo.models.classifier import Classifier
    from pneumo.training.checkpoints import write_checkpoint as write

    torch.manual_seed(0)
    size = {"image_size": 192, "crop_pct": 0.857}
    made = Classifier.from_hyperparameters(
        architecture="timm/tf_efficientnet_lite0", classes=["NORMAL", "PNEUMONIA"], **size, flip_test=True
    )
    content = {"state_dict": made.state_dict(), "hyper_parameters": dict(made.hparams)}
    write({**content, "pytorch-lightning_version": "2.6.0"}, path)
    return path


def loop(checkpoint: Path, films: list[Path]) -> float:
    """Answer to one film after the other."""
    from pneumo.data.radiograph import decode
    from pneumo.models.classifier import Classifier

    classifier = Classifier.load_from_checkpoint(checkpoint, weights_only=True).eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier.to(device)

    def answer(path: Path) -> float:
        image = torch.from_numpy(decode(path, classifier.image_size, classifier.crop_pct).copy()).to(device)
        with torch.inference_mode():
            return float(classifier.probability(classifier.predict_logits(image[None, None]))[0, 1])

    answer(films[0])
    return plain.images_per_second(lambda: len([answer(path) for path in films]))


def pneumo(checkpoint: Path, films: list[Path]) -> float:
    """Answer to them as the command does."""
    from pneumo import load_model

    model = load_model(checkpoint)

    def run(paths: list[Path]) -> int:
        return sum(1 for _ in model.predict(paths))

    run(films[:1])
    return plain.images_per_second(lambda: run(films))


def command(checkpoint: Path, films: list[Path], each: int) -> float:
    """Run the command for every `each` films, the start of Python and the loading of the network included."""
    started = time.perf_counter()
    for first in range(0, len(films), each):
        paths = map(str, films[first : first + each])
        subprocess.run([*COMMAND, str(checkpoint), *paths], check=True, capture_output=True)
    return len(films) / (time.perf_counter() - started)


def main() -> None:
    """Measure all sides."""
    settings = harness.parse(str(__doc__), rounds=3)
    films = sorted((settings.root / "test").glob("*/*"))
    checkpoint = write_checkpoint(settings.out / "prediction.ckpt")
    few = 100 if settings.full else 16
    sides: dict[str, harness.Side] = {
        "loop over single films": partial(loop, checkpoint, films[:: max(1, len(films) // few)][:few]),
        "pneumo predict, its loop": partial(pneumo, checkpoint, films),
        "pneumo predict, the command": partial(command, checkpoint, films, len(films)),
        "a command for each film": partial(command, checkpoint, films[: 8 if settings.full else 2], 1),
    }
    found = harness.alternate(sides, settings.rounds)
    harness.report("prediction", settings, "images/s", found, f"{len(films)} films")


if __name__ == "__main__":
    main()
