"""The command `pneumo export`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import rich
from PIL import Image

from pneumo.common.disk import temporary_folder
from pneumo.common.files import atomic_path, check_output, check_overwrites, unwritable
from pneumo.common.hardware import count_cores
from pneumo.common.terminal import print_line, track
from pneumo.data.folder_tree import describe_misplaced, find_data_sets
from pneumo.data.grey import square
from pneumo.data.image_cache import RadiographDataset, decoded_blocks
from pneumo.data.index import find_root, index_radiographs, label_subtypes, locate
from pneumo.data.phantoms import draw_radiograph
from pneumo.errors import ConfigError, DataError
from pneumo.inference.backend import Images, Network, Rules, as_flag
from pneumo.inference.export.formats import FORMATS, Format
from pneumo.inference.export.parity import (
    TOLERANCE,
    accuracy_table,
    measure_latency,
    score,
    speed_table,
    write_checked,
)
from pneumo.inference.export.writer import describe_network
from pneumo.inference.torch_backend import CheckpointNetwork
from pneumo.models.checkpoint_reader import read_checkpoint

_BLOCK = 16  # images that a worker process decodes at once
_PHANTOM_COUNT, _IMAGE_COUNT, _CALIBRATION_COUNT = 32, 100, 256
_BATCH_SIZES = (1, 32)


def run_export(checkpoint: Path, output: Path, int8: bool, data: Path | None) -> None:
    """Export a checkpoint's network to a file, verify it, and print file sizes and latencies.

    Args:
        checkpoint: Checkpoint of a run.
        output: File to write; its suffix selects the format, .onnx or .pt2.
        int8: Whether to quantise the network and measure the loss of accuracy on the test images.
        data: Dataset with images for verification and calibration; None for verification with phantoms.

    Raises:
        ConfigError: The checkpoint cannot be read, the output cannot be written, or the network cannot be exported.
        DataError: The dataset does not exist, or one of its images cannot be decoded.
    """
    file_format = _check_arguments(output, int8, data)
    check_overwrites([("--output", output)], [checkpoint])
    network = CheckpointNetwork(checkpoint)
    rules = network.rules
    if int8 and len(network.classifiers) > 1:
        raise ConfigError(f"--int8 requires a single network, but {checkpoint} is an ensemble. Omit --int8.")
    data_set = None if data is None else LabelledImages(data, read_checkpoint(checkpoint), rules)
    images = data_set.load("train", _IMAGE_COUNT)[0] if data_set else _draw_phantoms(_PHANTOM_COUNT, rules)
    with _atomic_output(output) as temporary, temporary_folder(output.parent) as folder:
        path = folder / output.name if int8 else temporary
        print_line(f"Exporting {rules.name} (large networks take a minute or more)")
        exported, difference = write_checked(network, checkpoint, images, path)
        print_line(
            f"Largest differences from the checkpoint on {len(images)} images: "
            f"probability {difference.probability:.1e} (limit {TOLERANCE.probability:g}), "
            f"OOD score {difference.ood_score:.1e} (limit {TOLERANCE.ood_score:g})"
        )
        float32_name, int8_name = f"{output.suffix}, float32", f"{output.suffix}, int8"
        networks: dict[str, Network] = {"checkpoint in PyTorch": network, float32_name: exported}
        sizes = {"checkpoint in PyTorch": checkpoint.stat().st_size, float32_name: path.stat().st_size}
        if int8 and data_set and file_format.quantise:
            print_line("Quantising to int8")
            calibration, _ = data_set.load("train", _CALIBRATION_COUNT)
            file_format.quantise(path, temporary, calibration, describe_network(checkpoint, network))
            networks[int8_name] = file_format.open(temporary, "cpu", as_flag)
            sizes[int8_name] = temporary.stat().st_size
        print_line("Measuring latencies")
        rich.print(speed_table(sizes, {size: measure_latency(networks, images, size) for size in _BATCH_SIZES}))
        if int8 and data_set:
            print_line("Evaluating float32 and int8 on the test images")
            images, labels = data_set.load("test")
            scores = {name: score(networks[name], images) for name in (float32_name, int8_name)}
            rich.print(accuracy_table(scores, labels, rules))
    print_line(f"Wrote {output}. Not a medical device: for research and teaching only.")


def _check_arguments(output: Path, int8: bool, data: Path | None) -> Format:
    """Return the format of the output; raise a ConfigError for invalid arguments before any slow step."""
    file_format = FORMATS.get(output.suffix)
    if file_format is None:
        suffixes = " or ".join(f"{suffix} (for {each.runtime})" for suffix, each in FORMATS.items())
        raise ConfigError(
            f"--output {output} must end in {suffixes}. Use a name such as --output network{next(iter(FORMATS))}."
        )
    if int8 and data is None:
        raise ConfigError(
            "--int8 requires a dataset: its training images calibrate the network, and its test images measure the "
            "loss of accuracy. Set --data ROOT to a folder with train/ and test/."
        )
    if int8 and file_format.quantise is None:
        supporting = {suffix: each.name for suffix, each in FORMATS.items() if each.quantise}
        raise ConfigError(
            f"--int8 requires the format {' or '.join(supporting.values())}, but --output is {output}. "
            f"Use a file name that ends in {' or '.join(supporting)}."
        )
    if missing := [name for name in file_format.packages if find_spec(name) is None]:
        simple = next(suffix for suffix, each in FORMATS.items() if not each.packages)
        raise ConfigError(
            f"Export to {file_format.name} requires packages that are not installed: {', '.join(missing)}. Run "
            f"pip install 'pneumo[export]', or use --output FILE{simple}, which requires no additional packages."
        )
    check_output("--output", output)
    return file_format


@contextmanager
def _atomic_output(output: Path) -> Iterator[Path]:
    try:
        with atomic_path(output) as temporary:
            yield temporary
    except OSError as error:
        raise unwritable("--output", output, error) from error


class LabelledImages:
    """Images of a dataset at a network's input size, with labels of the network's classes."""

    def __init__(self, root: Path, checkpoint: dict[str, Any], rules: Rules) -> None:
        """Index the images in a folder; `checkpoint` is the content that `read_checkpoint` returns."""
        if locate(root) is None:
            state = "does not contain train/ and test/" if root.is_dir() else "does not exist"
            if found := find_data_sets(root):
                raise DataError(f"--data {root} {state}: {describe_misplaced(root, found, '--data ')}.")
            raise DataError(
                f"--data {root} {state}. Use a folder with train/ and test/, each with one folder per class."
            )
        config = checkpoint.get("config", {})
        folders = config.get("data.classes", rules.classes)
        radiographs = index_radiographs(root, folders)
        has_subtypes = config.get("data.task") == "subtype"
        self.radiographs = label_subtypes(radiographs, folders)[0] if has_subtypes else radiographs
        self.root, self.rules = find_root(root), rules

    def load(self, split: str, count: int | None = None) -> tuple[Images, list[int]]:
        """Decode the images of a split, or a fixed random sample of `count` images.

        Returns:
            Images (N, 1, S, S) and their labels.

        Raises:
            DataError: A file cannot be decoded.
        """
        radiographs = [radiograph for radiograph in self.radiographs if radiograph.split == split]
        if count is not None:
            radiographs = [radiographs[i] for i in np.random.default_rng(0).permutation(len(radiographs))[:count]]
        dataset = RadiographDataset(self.root, radiographs, self.rules.input_format)
        blocks: list[Images] = []
        with track(f"Decoding {split} images", len(radiographs)) as update:
            for block in decoded_blocks(dataset, 0, _BLOCK, count_cores()):
                blocks.append(block)
                update(sum(map(len, blocks)))
        return np.concatenate(blocks), [radiograph.label for radiograph in radiographs]


def _draw_phantoms(count: int, rules: Rules) -> Images:
    """Draw phantoms at the network's input size, (count, 1, S, S), half of them with pneumonia."""
    phantoms = []
    for index in range(count):
        patient, image = (np.random.default_rng([index, stream]) for stream in (0, 1))
        pixels = draw_radiograph(patient, image, "bacterial" if index % 2 else "none")
        phantoms.append(square(Image.fromarray(pixels), rules.input_format))
    return np.stack(phantoms)[:, None]
