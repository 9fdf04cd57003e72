"""Reader of TensorBoard event files."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


def hparams_row(folder: Path) -> dict[str, str | float]:
    """Read a run's row of the HPARAMS table, in TensorBoard's order of columns."""
    events = EventAccumulator(str(folder))
    events.Reload()
    plugin = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    row = HParamsPluginData.FromString(plugin).session_start_info.hparams
    kinds = {name: row[name].WhichOneof("kind") for name in sorted(row)}
    return {name: getattr(row[name], kind) for name, kind in kinds.items()}
