"""Films to check an exported network with: of a data set, or drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pneumo.data.decoded import RadiographDataset, decoded_blocks
from pneumo.data.images import square
from pneumo.data.index import find_root, index_radiographs, label_subtypes, locate
from pneumo.data.nesting import describe_misplaced, find_data_sets
from pneumo.data.phantoms import draw_radiograph
from pneumo.errors import DataError
from pneumo.hardware import count_cores
from pneumo.prediction.network import Images
from pneumo.prediction.rules import Rules
from pneumo.progress import track

_BLOCK = 16  # films that a worker decodes at once


def draw_films(count: int, rules: Rules) -> Images:
    """Draw phantoms, as a network is shown them, (count, 1, S, S); half of them have a pneumonia."""
    films = []
    for number in range(count):
        patient, image = (np.random.default_rng([number, part]) for part in (0, 1))
        film = draw_radiograph(patient, image, "bacterial" if number % 2 else "none")
        films.append(square(Image.fromarray(film), rules.image_size, rules.crop_pct))
    return np.stack(films)[:, None]


class Films:
    """A data set's films, as a network is shown them, under the classes that it was trained to tell apart."""

    def __init__(self, root: Path, checkpoint: dict[str, Any], rules: Rules) -> None:
        """List the films in a folder; `checkpoint` is what `read_checkpoint` returns.

        Raises:
            DataError: There is no such data set.
        """
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
