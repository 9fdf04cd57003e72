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
from pneumo.common.files import atomic_path, check_output, refuse_inputs, unwritable
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
    ALLOWED,
    accuracy_table,
    measure_latency,
    score,
    speed_table,
    write_checked,
)
from pneumo.inference.export.writer import describe_network
from pneumo.inference.torch_backend import CheckpointNetwork
from pneumo.models.checkpoint_reader import read_checkpoint

_BLOCK = 16  # films that a worker decodes at once
_PHANTOMS, _FILMS, _CALIBRATION = 32, 100, 256
_BATCHES = (1, 32)


def run_export(checkpoint: Path, output: Path, int8: bool, data: Path | None) -> None:
    """Write a checkpoint's network to a file of its own, check that, and print what came of it.

    The output's suffix names the format: .onnx or .pt2. `int8` quantises it, and measures on the test films what that
    loses. `data` is a data set, whose films serve where phantoms would otherwise.

    Raises:
        ConfigError: The checkpoint or the output is none, or the network cannot be exported.
        DataError: There is no such data set.
    """
    form = _check(output, int8, data)
    refuse_inputs([("--output", output)], [checkpoint])
    network = CheckpointNetwork(checkpoint)
    rules = network.rules
    source = None if data is None else Films(data, read_checkpoint(checkpoint), rules)
    shown = source.load("train", _FILMS)[0] if source else _draw_films(_PHANTOMS, rules)
    with _written(output) as temporary, temporary_folder(output.parent) as folder:
        path = folder / output.name if int8 else temporary
        print_line(f"Exporting {rules.name}: a minute or more for large networks")
        exported, found = write_checked(network, checkpoint, shown, path)
        print_line(
            f"Largest differences on {len(shown)} films: {found.probability:.1e} in a probability "
            f"({ALLOWED.probability:g} is allowed), {found.unlike:.1e} of a score of unlike images ({ALLOWED.unlike:g})"
        )
        plain, small = f"{output.suffix}, float32", f"{output.suffix}, int8"
        networks: dict[str, Network] = {"checkpoint in PyTorch": network, plain: exported}
        sizes = {"checkpoint in PyTorch": checkpoint.stat().st_size, plain: path.stat().st_size}
        if int8 and source and form.quantise:
            print_line("Quantising to int8")
            form.quantise(path, temporary, source.load("train", _CALIBRATION)[0], describe_network(checkpoint, rules))
            networks[small], sizes[small] = form.open(temporary, "cpu", as_flag), temporary.stat().st_size
        print_line("Measuring latencies")
        rich.print(speed_table(sizes, {count: measure_latency(networks, shown, count) for count in _BATCHES}))
        if int8 and source:
            print_line("Measuring on the test films what int8 loses")
            films, labels = source.load("test")
            rich.print(accuracy_table({name: score(networks[name], films) for name in (plain, small)}, labels, rules))
    print_line(f"Wrote {output}, which is no medical device")


def _check(output: Path, int8: bool, data: Path | None) -> Format:
    """Return the output's format; refuse what cannot work before minutes are spent."""
    form = FORMATS.get(output.suffix)
    if form is None:
        ends = ", or in ".join(f"{suffix}, which {each.runners}" for suffix, each in FORMATS.items())
        raise ConfigError(f"--output {output} must end in {ends}, such as --output network{next(iter(FORMATS))}.")
    if int8 and data is None:
        raise ConfigError(
            "--int8 is calibrated on training films and measured on test films: name their data set as --data ROOT, a "
            "folder with train/ and test/."
        )
    if int8 and form.quantise is None:
        able = {suffix: each.name for suffix, each in FORMATS.items() if each.quantise}
        raise ConfigError(
            f"--int8 is for {' and '.join(able.values())}, and --output {output} is not: name a file that ends in "
            f"{' or '.join(able)}."
        )
    if missing := [name for name in form.packages if find_spec(name) is None]:
        simple = next(suffix for suffix, each in FORMATS.items() if not each.packages)
        raise ConfigError(
            f"Writing {form.name} needs {', '.join(missing)}, which this Python lacks: pip install 'pneumo[export]', "
            f"or take --output FILE{simple}, which needs nothing more."
        )
    check_output("--output", output)
    return form


@contextmanager
def _written(output: Path) -> Iterator[Path]:
    try:
        with atomic_path(output) as temporary:
            yield temporary
    except OSError as error:
        raise unwritable("--output", output, error) from error


class Films:
    """A data set's films, as a network is shown them, under the classes that it was trained to tell apart."""

    def __init__(self, root: Path, checkpoint: dict[str, Any], rules: Rules) -> None:
        """List the films in a folder; `checkpoint` is what `read_checkpoint` returns."""
        if locate(root) is None:
            found = find_data_sets(root)
            hint = describe_misplaced(root, found, "--data ") if found else "name a folder with both"
            raise DataError(
                f"--data {root} {'has no train/ and test/ in it' if root.is_dir() else 'does not exist'}: {hint}. "
                "Each of them has one folder per class."
            )
        config = checkpoint.get("config", {})
        folders = config.get("data.classes", rules.classes)
        films = index_radiographs(root, folders)
        subtypes = config.get("data.task") == "subtype"
        self.films = label_subtypes(films, folders)[0] if subtypes else films
        self.root, self.rules = find_root(root), rules

    def load(self, split: str, count: int | None = None) -> tuple[Images, list[int]]:
        """Decode a split's films, or `count` of them, always the same ones: images (N, 1, S, S) and labels.

        Raises:
            DataError: A file cannot be decoded.
        """
        films = [film for film in self.films if film.split == split]
        order = range(len(films)) if count is None else np.random.default_rng(0).permutation(len(films))[:count]
        chosen = [films[i] for i in order]
        dataset = RadiographDataset(self.root, chosen, self.rules.image_size, self.rules.crop_pct)
        blocks: list[Images] = []
        with track(f"Decoding {split} films", len(chosen)) as advance:
            for block in decoded_blocks(dataset, 0, _BLOCK, count_cores()):
                blocks.append(block)
                advance(sum(map(len, blocks)))
        return np.concatenate(blocks), [film.label for film in chosen]


def _draw_films(count: int, rules: Rules) -> Images:
    """Draw phantoms, as a network is shown them, (count, 1, S, S); half of them have a pneumonia."""
    films = []
    for number in range(count):
        patient, image = (np.random.default_rng([number, part]) for part in (0, 1))
        film = draw_radiograph(patient, image, "bacterial" if number % 2 else "none")
        films.append(square(Image.fromarray(film), rules.image_size, rules.crop_pct))
    return np.stack(films)[:, None]
