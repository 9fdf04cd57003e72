"""Decoded-image cache: all radiographs, decoded and resized once, in one memory-mapped array."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pneumo.common.array_cache import Array, Recipe, find_or_build
from pneumo.common.disk import temporary_folder
from pneumo.common.files import escape_path, write_text
from pneumo.common.hardware import keep_freed_memory
from pneumo.common.input_format import InputFormat
from pneumo.common.terminal import track
from pneumo.data.duplicates import SIDE, VERSION, group_duplicates
from pneumo.data.grey import DECODER
from pneumo.data.image_notes import ImageNotes
from pneumo.data.index import Radiograph, file_path
from pneumo.data.radiograph import decode_with_notes
from pneumo.errors import DataError

_log = logging.getLogger(__name__)
_FILES = 1024  # files submitted to the threads at once
_BLOCK = 32  # images that a worker decodes at once


def content_hash(root: Path, radiographs: Sequence[Radiograph], cache: Path) -> str:
    """Compute the hash of the paths, sizes and contents of all files, 32 hex digits.

    Files are read only once: the hash is stored in `cache` until a path, size or modification time changes.

    Raises:
        DataError: A file cannot be read, or has changed since it was indexed.
    """
    stats = hashlib.sha256(f"{escape_path(str(root.resolve()))}\n".encode())
    for radiograph in radiographs:
        stats.update(f"{radiograph.path}\0{radiograph.size}\0{radiograph.modified}\n".encode())
    manifest = cache / "manifests" / f"{stats.hexdigest()[:16]}.txt"
    if manifest.is_file() and len(stored := manifest.read_text(encoding="ascii")) == 32:
        return stored
    digest = hashlib.sha256()
    with track("Reading files", len(radiographs)) as update, ThreadPoolExecutor() as pool:
        for start in range(0, len(radiographs), _FILES):
            chunk = radiographs[start : start + _FILES]
            contents = pool.map(lambda radiograph: _file_hash(root, radiograph), chunk)
            for radiograph, content in zip(chunk, contents, strict=True):
                digest.update(f"{radiograph.path}\0{radiograph.size}\0{content}\n".encode())
            update(start + len(chunk))
    result = digest.hexdigest()[:32]
    try:
        write_text(manifest, result)
    except OSError as error:  # a cache shared by several users may be read-only
        _log.warning("%s cannot be written (%s); the next run reads all files again.", manifest, error.strerror)
    return result


def _require_unchanged(root: Path, radiographs: Iterable[Radiograph]) -> None:
    """Raise a DataError if a file has changed since it was indexed, so that caches always match their keys."""
    for radiograph in radiographs:
        path = file_path(root, radiograph.path)
        with _readable(path):
            _check_unchanged(path, path.stat(), radiograph)


def _file_hash(root: Path, radiograph: Radiograph) -> str:
    digest = hashlib.sha256()
    path = file_path(root, radiograph.path)
    with _readable(path), open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
        _check_unchanged(path, os.fstat(file.fileno()), radiograph)
    return digest.hexdigest()


def _check_unchanged(path: Path, status: os.stat_result, radiograph: Radiograph) -> None:
    if (status.st_size, status.st_mtime_ns) != (radiograph.size, radiograph.modified):
        raise DataError(
            f"{path} has changed since this run indexed it. The files of a data set must not change during a run. "
            "Run the same command again."
        )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Each file of a data set must be readable during a run. "
            "Fix its permissions or its disk, or delete it."
        ) from error


class RadiographDataset(Dataset[dict[str, Any]]):
    """Dataset of radiographs; a sample has input (1, size, size) uint8, label and index in the list.

    A sample also contains the notes on its image, joined by line breaks. `ImageLoader` removes them from the batches.
    """

    def __init__(
        self,
        root: Path,
        radiographs: Sequence[Radiograph],
        form: InputFormat,
        notes: ImageNotes | None = None,
    ) -> None:
        """Store the radiographs, their root folder, the format of the inputs, and the collection of notes."""
        self.root, self.radiographs, self.form = root, radiographs, form
        self.notes = ImageNotes() if notes is None else notes

    def __len__(self) -> int:
        """Return the number of radiographs."""
        return len(self.radiographs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Decode one radiograph."""
        radiograph = self.radiographs[index]
        pixels, notes = decode_with_notes(file_path(self.root, radiograph.path), self.form)
        image = torch.from_numpy(pixels.copy()).unsqueeze(0)
        return {"input": image, "label": radiograph.label, "index": index, "notes": "\n".join(notes)}


class ImageLoader(DataLoader[dict[str, Any]]):
    """Loader of a `RadiographDataset` that reports the notes on its images at the end of a pass.

    Workers return notes with the batches, because they are separate processes and would report images repeatedly.
    """

    def __init__(self, dataset: RadiographDataset, **options: Any) -> None:  # noqa: ANN401
        """Build the loader; `options` are those of a DataLoader."""
        super().__init__(dataset, worker_init_fn=_prepare_worker, **options)

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override] # a generator instead of an iterator class
        """Yield the batches of a pass."""
        dataset = cast(RadiographDataset, self.dataset)
        for number, batch in enumerate(super().__iter__(), 1):
            for index, notes in zip(batch["index"].tolist(), batch.pop("notes"), strict=True):
                dataset.notes.add(dataset.radiographs[index].path, notes.splitlines())
            if number == len(self):  # not after the loop, since Lightning stops iterating at the last batch
                dataset.notes.report()
            yield batch


def _prepare_worker(number: int) -> None:
    """Make a worker process keep freed memory for the next image, which halves the decoding time."""
    keep_freed_memory()


def decode_all(dataset: RadiographDataset, workers: int, content: str, cache: Path) -> Array:
    """Open the array of all decoded radiographs, (N, 1, size, size) uint8, and build it if necessary.

    Notes on the images are stored with the array, added to `dataset.notes`, and reported.

    Args:
        dataset: The radiographs.
        workers: Number of processes that decode; 0 uses the current process.
        content: The result of `content_hash`.
        cache: The cache folder.

    Raises:
        DataError: A file cannot be decoded.
        CacheError: The disk is full or cannot be written.
    """
    recipe = decoded_recipe(len(dataset), dataset.form, content)
    array = find_or_build(
        cache, recipe, lambda start: decoded_blocks(dataset, start, _BLOCK, workers), dataset.notes.found
    )
    dataset.notes.report()
    return array


def decoded_recipe(images: int, form: InputFormat, content: str) -> Recipe:
    """Return the recipe of the array that `decode_all` opens."""
    provenance = {"data": content, "images": images, **form.provenance(), "decoder": DECODER}
    return Recipe("images", provenance, (images, 1, form.size, form.size), "uint8", "Decoding images")


def find_near_duplicates(dataset: RadiographDataset, workers: int, content: str, cache: Path | None) -> list[int]:
    """Return the group of near-duplicates of each radiograph, (N,); see `group_duplicates`.

    Arguments and errors are those of `decode_all`. The result is stored in `cache`, unless `cache` is None.
    """
    if cache is None:
        with temporary_folder(Path(tempfile.gettempdir())) as folder:
            return find_near_duplicates(dataset, workers, content, folder)
    small = RadiographDataset(dataset.root, dataset.radiographs, InputFormat(SIDE), notes=dataset.notes)

    def blocks(start: int) -> Iterator[Array]:
        yield group_duplicates(np.asarray(decode_all(small, workers, content, cache)[:, 0]))

    provenance = {"data": content, "images": len(dataset), "decoder": DECODER, "version": VERSION}
    recipe = Recipe("duplicates", provenance, (len(dataset),), "int64", "Searching for near-duplicates")
    groups: list[int] = find_or_build(cache, recipe, blocks, dataset.notes.found).tolist()
    dataset.notes.report()
    return groups


def decoded_blocks(dataset: RadiographDataset, start: int, size: int, workers: int) -> Iterator[Array]:
    """Decode radiographs from index `start` on, in blocks (size, 1, H, W) uint8, with `workers` processes.

    Raises:
        DataError: A file cannot be decoded, or has changed since it was indexed.
    """
    loader = ImageLoader(
        dataset,
        batch_size=size,
        sampler=range(start, len(dataset)),
        num_workers=workers,
        generator=torch.Generator(),  # without it, the loader would use the global generator
    )
    for batch in loader:
        _require_unchanged(dataset.root, (dataset.radiographs[index] for index in batch["index"].tolist()))
        yield batch["input"].numpy()
