"""The folder of overlays that `pneumo predict --explain` writes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pneumo.common.files import atomic_path, bounded_name, unwritable
from pneumo.common.terminal import warn
from pneumo.data.radiograph import some
from pneumo.inference.backend import Network
from pneumo.inference.explain.overlays import Example, Explainer, draw_examples
from pneumo.inference.outputs import show_path
from pneumo.inference.prediction import NOTICE, Batch

_OVERVIEW = "overview.png"
_MOST = 24  # images in the overview
_OF_THE_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}
_SMALL = 360  # pixels of an image's longer side there


class OverlayFolder:
    """A folder of overlays, a picture an image, and an overview of the first ones."""

    def __init__(self, folder: Path, network: Network, paths: Sequence[Path]) -> None:
        """Name the pictures of all files.

        Raises:
            ConfigError: As `Network.explainer`.
        """
        self.folder, self.explainer, self.names = folder, Explainer(network), name_pictures(paths)
        self.examples: list[Example] = []
        self.failed: list[str] = []

    def add(self, batch: Batch) -> None:
        """Write the overlays of a batch.

        Raises:
            ConfigError: A file cannot be written.
        """
        for explanation in self.explainer.explain(batch):
            prediction, name = explanation.prediction, self.names[explanation.prediction.path]
            if not self._write(name, Image.fromarray(explanation.overlay).save):
                self.failed.append(show_path(prediction.path))
            if len(self.examples) < _MOST:
                small = Image.fromarray(explanation.image)
                small.thumbnail((_SMALL, _SMALL))
                title = show_path(Path(name.removesuffix(".png")))
                title = title if len(title) <= 28 else f"…{title[-27:]}"
                named = str(prediction.predicted_class), explanation.target, prediction.probability[explanation.target]
                self.examples.append(Example(np.asarray(small), explanation.input_saliency, title, *named))

    def finish(self) -> bool:
        """Write the overview, name the files whose pictures could not be written, and return whether there were none.

        Raises:
            ConfigError: The overview cannot be written.
        """
        count, total = len(self.examples), len(self.names)
        if self.failed:
            warn(
                f"{len(self.failed):,} of {total:,} maps are not in {self.folder}, which cannot have files of their "
                f"names: {some(self.failed)}. Give these films other names, or --explain another place."
            )
        if count:
            which = "" if count == total else f" in the first {count} of {total:,} films"
            title = f"What speaks for {self.explainer.subject}{which}\n{NOTICE}"
            figure = draw_examples(self.examples, title, self.explainer.crop_pct)
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
    """Name each file's picture: its path below the folder that all share, its suffix kept, and .png.

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
