"""Hyperparameters in TensorBoard's HPARAMS table: the settings that have columns of their own, and the rest as text."""

from collections.abc import Sequence

from pneumo.fingerprints import is_decisive

# Settings with a column in every row, under the same or another name.
COLUMNS = (
    *("model", "optimizer", "seed", "experiment", "data", "optimizer.lr", "data.batch_size", "data.image_size"),
    *("epochs", "trainer.max_epochs"),
)


def other_overrides(overrides: Sequence[str]) -> str:
    """Return the overrides that decide a run's numbers and have no column of their own, as one text."""
    keys = {override: override.partition("=")[0].lstrip("+~") for override in overrides}
    return " ".join(override for override, key in keys.items() if key not in COLUMNS and is_decisive(key))
