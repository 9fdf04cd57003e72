"""What TensorBoard's PROJECTOR tab shows of a run: test images, each where the backbone's features put it."""

import math
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pneumo.building import RunComponents
from pneumo.data.films import load_films
from pneumo.data.index import Radiograph, positions
from pneumo.escaping import escape_line
from pneumo.evaluation.answers import Predictions
from pneumo.tensorboard import RunLogger

CONFIG = "projector_config.pbtxt"  # TensorBoard looks for this name in a run's folder
FOLDER, _TAG = "projector", "test"
# In FOLDER: those of SummaryWriter.add_embedding, and those of earlier versions.
NAMES = ("test/tensors.tsv", "test/metadata.tsv", "test/sprite.png", "features.tsv", "images.tsv", "films.png")
_HEADER = ("class", "called", "answer", "probability", "subtype", "file")
_SPRITE, _SHEET = 48, 8192  # pixels: of a small image, and the most that browsers accept for all of them


def write_projector(folder: Path, logger: RunLogger, answers: Predictions, components: RunComponents) -> None:
    """Write features, classes, predictions and small images of all test images, and the file that names them.

    Args:
        folder: The run's.
        logger: Writes into it.
        answers: To the test images.
        components: The run's, with the tested weights.
    """
    place = {image.path: image for image in components.datamodule.splits["test"]}
    images = [place[path] for path in answers.paths]
    rows = []
    for image, truth, answer, share in zip(images, answers.label, answers.predicted, answers.confidence, strict=True):
        right = "right" if truth == answer else "wrong"
        names = answers.classes[truth], answers.classes[answer]
        rows.append([escape_line(cell) for cell in (*names, right, f"{share:.4f}", image.subtype, image.path)])
    size = min(_SPRITE, _SHEET // math.ceil(math.sqrt(len(images))))
    films = torch.from_numpy(load_films(components.datamodule, images))[:, None].float() / 255
    small = interpolate(films, (size, size), mode="bilinear", antialias=True)
    with suppress(OSError):  # an empty folder of an earlier run, which TensorBoard would warn of
        (folder / FOLDER / _TAG).rmdir()
    features = _compute(images, components)
    logger.experiment.add_embedding(features, rows, small, global_step=FOLDER, tag=_TAG, metadata_header=_HEADER)


def _compute(images: list[Radiograph], components: RunComponents) -> Tensor:
    """Compute the backbone's features of images, (n, D), unless the run was served with them."""
    datamodule, classifier = components.datamodule, components.classifier
    device = components.trainer.strategy.root_device
    places = positions(images, datamodule.radiographs)
    if datamodule.inputs is not None and datamodule.inputs.ndim == 2:
        return torch.from_numpy(datamodule.inputs[places])
    classifier.eval().to(device)
    with torch.inference_mode():
        blocks = datamodule.image_blocks(places, datamodule.batch_size)
        return torch.cat([classifier.backbone(block.to(device)).float().cpu() for block in blocks])
