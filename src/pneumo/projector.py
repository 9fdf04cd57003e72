"""What TensorBoard's PROJECTOR tab shows of a run: test images, each where the backbone's features put it."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from pneumo.building import RunComponents
from pneumo.cache import Array
from pneumo.data.films import load_films
from pneumo.data.index import Radiograph, positions
from pneumo.escaping import escape_line
from pneumo.evaluation.answers import Answers, ClassAnswers, called
from pneumo.files import atomic_path, write_text

CONFIG = "projector_config.pbtxt"  # TensorBoard looks for this name in a run's folder
FOLDER = "projector"
NAMES = ("features.tsv", "images.tsv", "films.png")  # in FOLDER
_SPRITE, _SHEET = 48, 8192  # pixels: of a small film, and the most that browsers take for all of them


def write_projector(
    folder: Path,
    answers: Answers | ClassAnswers,
    components: RunComponents,
) -> None:
    """Write features, classes, answers and small films of all test images, and the file that names them.

    SummaryWriter.add_embedding does the like, in a folder named by a step, with three times the digits.

    Args:
        folder: The run's.
        answers: To the test images.
        components: The run's, with the tested weights.
    """
    datamodule = components.datamodule
    place = {image.path: image for image in datamodule.splits["test"]}
    images = [place[path] for path in answers.paths]
    features = _compute(images, components)
    with atomic_path(folder / FOLDER / "features.tsv") as path:
        np.savetxt(path, features, fmt="%.6g", delimiter="\t")
    write_text(folder / FOLDER / "images.tsv", _describe(answers, images))
    size = min(_SPRITE, _SHEET // math.ceil(math.sqrt(len(images))))
    with atomic_path(folder / FOLDER / "films.png") as path:
        _arrange(load_films(datamodule, images), size).save(path)
    config = ProjectorConfig()
    embedding = config.embeddings.add()
    embedding.tensor_name, embedding.tensor_path = "test images", f"{FOLDER}/features.tsv"
    embedding.tensor_shape.extend(features.shape)
    embedding.metadata_path = f"{FOLDER}/images.tsv"
    embedding.sprite.image_path = f"{FOLDER}/films.png"
    embedding.sprite.single_image_dim.extend((size, size))
    write_text(folder / CONFIG, str(config))


def _compute(images: list[Radiograph], components: RunComponents) -> Array:
    """Give the backbone's features of images, (n, D): those that the run was served with, if it was."""
    datamodule, classifier = components.datamodule, components.classifier
    device = components.trainer.strategy.root_device
    places = positions(images, datamodule.radiographs)
    if datamodule.inputs is not None and datamodule.inputs.ndim == 2:
        features: Array = datamodule.inputs[places]
        return features
    classifier.eval().to(device)
    with torch.inference_mode():
        blocks = datamodule.image_blocks(places, datamodule.batch_size)
        return torch.cat([classifier.backbone(block.to(device)).float().cpu() for block in blocks]).numpy()


def _describe(answers: Answers | ClassAnswers, images: list[Radiograph]) -> str:
    """Give a table of what TensorBoard is to label and colour images by."""
    lines = [("class", "called", "answer", "probability", "subtype", "file")]
    for image, truth, answer, share in zip(images, *called(answers), strict=True):
        right = "right" if truth == answer else "wrong"
        names = answers.classes[truth], answers.classes[answer]
        lines.append((*names, right, f"{share:.4f}", image.subtype, image.path))
    return "".join("\t".join(map(escape_line, line)) + "\n" for line in lines)


def _arrange(films: Array, size: int) -> Image.Image:
    """Put small films row by row into a square, as the projector reads it."""
    across = math.ceil(math.sqrt(len(films)))
    sheet = Image.new("L", (across * size, across * size))
    for number, film in enumerate(films):
        row, column = divmod(number, across)
        small = Image.fromarray(film).resize((size, size), Image.Resampling.BILINEAR)
        sheet.paste(small, (column * size, row * size))
    return sheet
