"""Maps of where answers come from, laid over films and written as pictures."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from pneumo.console import warn
from pneumo.data.notes import some
from pneumo.explanations.maps import Explainer
from pneumo.explanations.overlays import Example, Map, draw_examples, overlay
from pneumo.files import atomic_path, bounded_name
from pneumo.outputs import unwritable
from pneumo.prediction.checkpoint import CheckpointNetwork, fitting
from pneumo.prediction.documents import show_path
from pneumo.prediction.films import Film
from pneumo.prediction.network import Network, no_maps
from pneumo.prediction.predictions import NOTICE, Batch

_OVERVIEW = "overview.png"
_AT_ONCE = 16  # films that are explained at once: gradients take several times the memory of answers
_MOST = 24  # films in the overview
_OF_THE_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}
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
        self.failed: list[str] = []

    def add(self, batch: Batch) -> None:
        """Write the overlays of a batch.

        Raises:
            ConfigError: A file cannot be written.
        """
        read = [pair for pair in zip(batch.predictions, batch.films, strict=True) if pair[1].shown is not None]
        drawn = self.overlays.draw([film for _, film in read]) if read else []
        for (prediction, film), (picture, places) in zip(read, drawn, strict=True):
            name, answer = self.names[prediction.path], prediction.answer
            if not self._write(name, picture.save):
                self.failed.append(show_path(prediction.path))
            if len(self.examples) < _MOST and answer is not None and film.shown is not None:
                film.shown.thumbnail((_SMALL, _SMALL))
                target = self.classes[1] if len(self.classes) == 2 else answer.called
                share = answer.probabilities[self.classes.index(target)]
                title = _shorten(show_path(Path(name.removesuffix(".png"))))
                self.examples.append(Example(np.asarray(film.shown), places, title, answer.called, target, share))

    def finish(self) -> bool:
        """Write the overview, name the files whose pictures could not be written, and return whether there were none.

        Raises:
            ConfigError: The overview cannot be written.
        """
        if self.failed:
            warn(
                f"{len(self.failed):,} of {len(self.names):,} maps are not in {self.folder}, which cannot have files "
                f"of their names: {some(self.failed)}. Give these films other names, or --explain another place."
            )
        if not self.examples:
            return not self.failed
        count, total = len(self.examples), len(self.names)
        which = "" if count == total else f" in the first {count} of {total:,} films"
        title = f"What speaks for {self.overlays.subject}{which}\n{NOTICE}"
        figure = draw_examples(self.examples, title, self.overlays.crop_pct)
        self._write(_OVERVIEW, lambda path: figure.savefig(path, dpi=110))
        return not self.failed

    def _write(self, name: str, write: Callable[[Path], None]) -> bool:
        """Write a picture; return whether the folder can have a file of this name."""
        try:
            with atomic_path(self.folder / name) as temporary:
                write(temporary)
        except OSError as error:
            if error.errno in _OF_THE_NAME:
                return False
            raise unwritable("--explain", self.folder / name, error) from error
        return True


def name_pictures(paths: Sequence[Path]) -> dict[Path, str]:
    """Give each file a picture's name: its path below the folder that all share, its suffix kept, and .png.

    A name that is too long for that is cut, and ends in a hash.
    """
    absolute = [os.path.abspath(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in absolute])
    taken, names = {_OVERVIEW}, {}
    for path, whole in zip(paths, absolute, strict=True):
        folder, stem = os.path.split(os.path.relpath(whole, shared))
        name = os.path.join(folder, bounded_name(stem, ".png"))
        number = 1
        while name in taken:  # of paths through links two can become the same
            number += 1
            name = os.path.join(folder, bounded_name(stem, f"-{number}.png"))
        taken.add(name)
        names[path] = name
    return names


def _shorten(name: str) -> str:
    return name if len(name) <= 28 else f"…{name[-27:]}"
