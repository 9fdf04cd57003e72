"""Maps of where answers come from, laid over films and written as pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from pneumo.explanations.maps import Explainer
from pneumo.explanations.overlays import Example, Map, draw_examples, overlay
from pneumo.files import atomic_path
from pneumo.outputs import unwritable
from pneumo.prediction.checkpoint import CheckpointNetwork, fitting
from pneumo.prediction.documents import show_path
from pneumo.prediction.films import Film
from pneumo.prediction.network import Network, no_maps
from pneumo.prediction.predictions import NOTICE, Batch

_OVERVIEW = "overview.png"
_AT_ONCE = 16  # films that are explained at once: gradients take several times the memory of answers
_MOST = 24  # films in the overview
_SMALL = 360  # pixels of a film's longer side there


class Drawn(NamedTuple):
    """A film with its map over it, and the map alone, (S, S)."""

    picture: Image.Image
    places: Map


class Overlays:
    """Draws maps over films."""

    def __init__(self, network: Network) -> None:
        """Look for the layer whose places are shown.

        Raises:
            ConfigError: The network is an exported one, which has no gradients, or no layer of it fits.
        """
        if not isinstance(network, CheckpointNetwork):
            raise no_maps(network)
        classes = network.rules.classes
        self.subject = classes[1] if len(classes) == 2 else "the class that is called"  # what maps speak for
        self.crop_pct = network.rules.crop_pct
        self.explainer = Explainer(network.classifier.to(network.device))

    def draw(self, films: Sequence[Film]) -> list[Drawn]:
        """Draw films that were read, with copies to look at."""
        seen = [(film.square, film.shown) for film in films if film.square is not None and film.shown is not None]
        images = torch.from_numpy(np.stack([pixels for pixels, _ in seen]))
        with fitting(_AT_ONCE):
            maps = torch.cat([self.explainer(block).cpu() for block in torch.split(images, _AT_ONCE)]).numpy()
        return [
            Drawn(Image.fromarray(overlay(np.asarray(shown), places, self.crop_pct)), places)
            for (_, shown), places in zip(seen, maps, strict=True)
        ]


class OverlayFolder:
    """A folder of overlays, a picture a film, and an overview of the first films."""

    def __init__(self, folder: Path, network: Network, paths: Sequence[Path]) -> None:
        """Name the pictures of all films.

        Raises:
            ConfigError: As `Overlays`.
        """
        self.folder, self.overlays = folder, Overlays(network)
        self.classes, self.names = network.rules.classes, name_pictures(paths)
        self.examples: list[Example] = []

    def add(self, batch: Batch) -> None:
        """Write the overlays of a batch.

        Raises:
            ConfigError: A file cannot be written.
        """
        read = [pair for pair in zip(batch.predictions, batch.films, strict=True) if pair[1].shown is not None]
        drawn = self.overlays.draw([film for _, film in read]) if read else []
        for (prediction, film), (picture, places) in zip(read, drawn, strict=True):
            name, answer = self.names[prediction.path], prediction.answer
            self._write(name, picture.save)
            if len(self.examples) < _MOST and answer is not None and film.shown is not None:
                film.shown.thumbnail((_SMALL, _SMALL))
                target = self.classes[1] if len(self.classes) == 2 else answer.called
                share = answer.probabilities[self.classes.index(target)]
                title = _shorten(show_path(Path(name.removesuffix(".png"))))
                self.examples.append(Example(np.asarray(film.shown), places, title, answer.called, target, share))

    def finish(self) -> None:
        """Write the overview.

        Raises:
            ConfigError: It cannot be written.
        """
        if not self.examples:
            return
        count, total = len(self.examples), len(self.names)
        which = "" if count == total else f" in the first {count} of {total:,} films"
        title = f"What speaks for {self.overlays.subject}{which}\n{NOTICE}"
        figure = draw_examples(self.examples, title, self.overlays.crop_pct)
        self._write(_OVERVIEW, lambda path: figure.savefig(path, dpi=110))

    def _write(self, name: str, write: Callable[[Path], None]) -> None:
        try:
            with atomic_path(self.folder / name) as temporary:
                write(temporary)
        except OSError as error:
            raise unwritable("--explain", self.folder / name, error) from error


def name_pictures(paths: Sequence[Path]) -> dict[Path, str]:
    """Give each file a picture's name: its path below the folder that all share, its suffix kept, and .png."""
    absolute = [os.path.abspath(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in absolute])
    taken, names = {_OVERVIEW}, {}
    for path, whole in zip(paths, absolute, strict=True):
        name = stem = os.path.relpath(whole, shared)
        number = 1
        while f"{name}.png" in taken:  # of paths through links two can become the same
            number += 1
            name = f"{stem}-{number}"
        taken.add(f"{name}.png")
        names[path] = f"{name}.png"
    return names


def _shorten(name: str) -> str:
    return name if len(name) <= 28 else f"…{name[-27:]}"
