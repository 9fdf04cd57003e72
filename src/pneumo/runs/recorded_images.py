"""Images of a run, found by its recorded configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pneumo.data.index import default_root
from pneumo.runs.recorded_config import select
from pneumo.runs.results import Results
from pneumo.runs.split_files import find_images, find_table_images


def find_recorded_images(folder: Path, settings: dict[str, Any], results: Results, paths: Sequence[str]) -> list[Path]:
    """Find the files of a run's images.

    Args:
        folder: Run folder.
        settings: Recorded configuration, with references resolved.
        results: Content of results.json.
        paths: Paths of the images, as in splits.csv.

    Raises:
        ConfigError: A setting is missing.
        DataError: The data are not where the run read them, or differ.
    """
    data_root = select(settings, "data.root", str, type(None))
    if "table" in select(settings, "data", dict):
        table = Path(select(settings, "data.table", str)).parent
        return find_table_images(folder, table if data_root is None else Path(data_root), paths)
    root = default_root() if data_root is None else Path(data_root)
    classes = [str(name) for name in select(settings, "data.classes", list)]
    return find_images(folder, root, classes, str(results["data_hash"]), paths)
