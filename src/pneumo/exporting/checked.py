"""A checkpoint's network written to a file, which is then opened anew and compared with the checkpoint."""

from collections.abc import Callable
from pathlib import Path

from pneumo.errors import ConfigError
from pneumo.exporting.formats import describe, write_network
from pneumo.exporting.parity import Difference, compare, score, score_plainly
from pneumo.exporting.program import ProgramNetwork
from pneumo.prediction.checkpoint import CheckpointNetwork
from pneumo.prediction.exported import OnnxNetwork
from pneumo.prediction.network import Images, Network

FORMATS: dict[str, Callable[[Path], Network]] = {".onnx": OnnxNetwork, ".pt2": ProgramNetwork}
ALLOWED = Difference(1e-4, 1e-3)  # what rounding explains


def write_checked(
    network: CheckpointNetwork, checkpoint: Path, films: Images, path: Path
) -> tuple[Network, Difference]:
    """Write a network, and return what was written, opened again, and how far it is from the checkpoint.

    Args:
        network: The checkpoint, opened.
        checkpoint: Its file.
        films: To compare by, (N, 1, S, S).
        path: To write to; its suffix names the format.

    Raises:
        ConfigError: PyTorch cannot export the network, or its answers are too far.
    """
    write_network(network.scorer, network.rules, describe(checkpoint, network.rules), path)
    exported = FORMATS[path.suffix](path)
    found = compare(score_plainly(network.classifier, films), score(exported, films))
    if not all(value <= most for value, most in zip(found, ALLOWED, strict=True)):  # NaN is no match either
        raise ConfigError(
            f"{network.rules.name} was exported as {path.suffix}, but answers otherwise than its checkpoint: "
            f"probabilities differ by up to {found.probability:.2g} ({ALLOWED.probability:g} is allowed), scores of "
            f"unlike images by {found.unlike:.2g} of them ({ALLOWED.unlike:g}). Nothing was written: take the other "
            "format, or another version of PyTorch."
        )
    return exported, found
