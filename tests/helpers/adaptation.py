import tempfile
from pathlib import Path
from typing import Any

from pneumo.data.labelled_images import LabelledSet
from pneumo.data.selection import DataSelection
from pneumo.inference.adapt.adapter import AdaptationOptions, run_adapt
from pneumo.models.checkpoint_reader import read_checkpoint


def adapt_checkpoint(checkpoint: Path, labelled: LabelledSet, output: Path, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """Adapt a checkpoint and return the content of the new one."""
    run_adapt(checkpoint, select_images(labelled), output, None, AdaptationOptions(**options), None, "cpu")
    return read_checkpoint(output)


def select_images(labelled: LabelledSet, extra: str = "") -> DataSelection:
    """Write a table of images into a new folder and return the selection of it."""
    table = Path(tempfile.mkdtemp(dir=labelled.images[0].file.parent)) / "hospital.csv"
    rows = [f"{image.file},{image.label},{image.patient}" for image in labelled.images]
    table.write_text("\n".join(["file,label,patient", *rows, extra]))
    return DataSelection([table])
