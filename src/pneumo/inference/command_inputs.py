"""Networks and labelled data of a command, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pneumo.common.files import check_overwrites
from pneumo.common.terminal import print_line
from pneumo.data.folder_tree import SPLITS
from pneumo.data.labelled_images import LabelledSet
from pneumo.data.selection import DataSelection, written_images
from pneumo.errors import ConfigError
from pneumo.inference.export.formats import FORMATS

_NETWORKS = (".ckpt", *FORMATS)  # suffixes of networks, which are not data


def read_selection(
    selection: DataSelection, outputs: Sequence[tuple[str, Path | None]], networks: Sequence[Path]
) -> list[LabelledSet]:
    """Read the sets of a command, and print which split is used.

    Args:
        selection: The labelled data.
        outputs: Pairs of a command-line option and its output path.
        networks: File of the network, and optionally that of the option --against.

    Raises:
        ConfigError: An output would overwrite another file of the command, a network is not a file, or an option does
            not fit the data.
        DataError: The data are invalid.
    """
    check_overwrites(outputs, [*networks, *selection.files])
    _check_order(networks[0], selection.data)
    for option, path in zip(("", "--against "), networks, strict=False):
        require_checkpoint(path, option)
    sets = selection.read()
    check_overwrites(outputs, written_images(outputs, (image.file for each in sets for image in each.images)))
    if any(image.split for each in sets for image in each.images):
        print_line(f"Data with the splits {', '.join(SPLITS)}: using {selection.split}. Change it with --split.")
    return sets


def _check_order(checkpoint: Path, data: Sequence[Path]) -> None:
    """Raise a ConfigError for a network among the data, such as for exchanged arguments."""
    network = next((path for path in data if path.suffix.lower() in _NETWORKS and path.is_file()), None)
    if network is None:
        return
    if checkpoint.suffix.lower() in _NETWORKS:
        raise ConfigError(f"{network} is a network, but data must be folders or CSV tables. Use such data.")
    kind = "a folder" if checkpoint.is_dir() else "not a checkpoint"
    raise ConfigError(
        f"The first argument must be a checkpoint, but {checkpoint} is {kind}, and {network} is given as data. "
        "Exchange the arguments."
    )


def require_checkpoint(path: Path, option: str = "") -> None:
    """Raise a ConfigError unless the path of a network is a file; of a run folder, name the best checkpoint.

    Args:
        path: The path.
        option: Command-line option with a space, such as `--against `; empty for an argument.
    """
    if path.is_file():
        return
    best = next((file for file in (path / "checkpoints" / "best.ckpt", path / "best.ckpt") if file.is_file()), None)
    fix = f"Use {option}{best}" if best else "Use a checkpoint, such as RUN/checkpoints/best.ckpt, or an ONNX file from"
    raise ConfigError(
        f"{option}{path} is {'a folder' if path.is_dir() else 'not a file'}, but it must be a network. {fix}"
        f"{'' if best else ' `pneumo export`'}."
    )
