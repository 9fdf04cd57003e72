"""The predictor: prediction, explanation and evaluation of image files by a loaded network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumo.common.terminal import warn
from pneumo.errors import ConfigError, DataError
from pneumo.inference.backend import Network, Rules, SettingStyle, as_argument
from pneumo.inference.batch_predictor import BatchPredictor
from pneumo.inference.command_inputs import require_checkpoint
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.inputs import find_inputs, read_input
from pneumo.inference.prediction import PredictedBatch, Prediction

if TYPE_CHECKING:
    from pneumo.inference.evaluate.evaluation import Evaluation
    from pneumo.inference.explain.overlays import Explainer, Explanation

StrPath = str | os.PathLike[str]


class Predictor(BatchPredictor):
    """A checkpoint or an exported network that predicts, explains and evaluates radiographs.

    Attributes:
        network: The network's backend.
        rules: The network's class names, image size, threshold and other settings.
        batch_size: Number of images in a batch.
        path: The network's file; None if it was built in memory.
    """

    def __init__(self, network: Network, batch_size: int | None = None, path: Path | None = None) -> None:
        """Wrap a loaded network; `load_model` creates a predictor from a file."""
        super().__init__(network, batch_size, path)
        self._explainers: dict[str, Explainer] = {}

    def predict(self, inputs: StrPath | Sequence[StrPath]) -> Iterator[Prediction]:
        """Predict files one by one; the prediction for an unreadable file has an `error`.

        Args:
            inputs: A file, a folder, a pattern such as `scans/**/*.dcm`, or a sequence of these. Folders are searched
                recursively for files of any suffix.

        Raises:
            ConfigError: An input matches no file.
        """
        batches = self.predict_batches(find_inputs(_paths(inputs)))
        return (prediction for batch in batches for prediction in batch.predictions)

    def explain(self, path: StrPath, method: str = "hirescam") -> Explanation:
        """Compute a saliency map of a radiograph.

        Args:
            path: Path of the image file.
            method: hirescam, gradcam or occlusion; see docs/EXPLANATIONS.md.

        Raises:
            ConfigError: The network is an exported one without gradients, or the method is unknown or fits none of its
                layers.
            DataError: The file cannot be read.
        """
        if method not in self._explainers:
            from pneumo.inference.explain.overlays import Explainer  # imports Matplotlib

            self._explainers[method] = Explainer(self.network, method)
        image = read_input(Path(path), self.rules, keep_preview=True)
        if image.error is not None:
            raise DataError(f"{image.path} {image.error}")
        return self._explainers[method].explain(PredictedBatch(self.predict_images([image]), [image]))[0]

    def evaluate(
        self,
        data: StrPath | Sequence[StrPath] = (),
        *,
        labels: StrPath | Sequence[StrPath] = (),
        by: str | Sequence[str] = (),
        prevalences: Sequence[float] = (),
        **options: Any,  # noqa: ANN401 (of several types)
    ) -> Evaluation:
        """Evaluate the network on labelled images; several sets are sites.

        Args:
            data: Folders of class folders, folders with train/, val/ or test/, or CSV tables.
            labels: CSV tables with the columns file and label, in the order of the folders in `data`.
            by: One or more columns whose values define subgroups, such as view or age.
            prevalences: Prevalences for predictive values.
            options: Further fields of `DataSelection` (preset, columns, mapping, split) and `EvaluationOptions`
                (against, run, training_data, stress, mined_labels).

        Raises:
            ConfigError: An option does not fit the data or the network.
            DataError: A label is not a class of the network, or images cannot be read.
        """
        from pneumo.data.option_style import PYTHON
        from pneumo.data.selection import DataSelection
        from pneumo.inference.evaluate.evaluation import EvaluationOptions, evaluate

        chosen = {name: options.pop(name) for name in ("preset", "columns", "mapping", "split") if name in options}
        options |= {name: Path(options[name]) for name in ("run", "training_data") if options.get(name) is not None}
        selection = DataSelection(_paths(data), _paths(labels), **chosen, style=PYTHON)
        columns = [by] if isinstance(by, str) else by
        return evaluate(self, selection.read(), EvaluationOptions(columns, prevalences, **options), selection.split)


def load_model(path: StrPath, device: str = "auto", batch_size: int | None = None) -> Predictor:
    """Load a checkpoint or an exported network as a predictor.

    Args:
        path: A checkpoint, such as RUN/checkpoints/best.ckpt, an ensemble from `pneumo ensemble --checkpoint`, or an
            exported `.onnx` file, which needs no PyTorch.
        device: cpu, cuda or auto (a GPU if available).
        batch_size: Number of images in a batch; None: the fastest on the device.

    Raises:
        ConfigError: The file does not exist, is damaged or is not a network, or a setting is invalid.
        HardwareError: The device is not available.
    """
    return load_predictor(Path(path), device, batch_size, as_argument)


def load_predictor(path: Path, device: str, batch_size: int | None, style: SettingStyle) -> Predictor:
    """Load a predictor; see `load_model`. Errors format settings in the given style."""
    if batch_size is not None and batch_size < 1:
        raise ConfigError(
            f"{style('batch_size', batch_size)} is out of range: it must be 1 or more. Use a value such as "
            f"{style('batch_size', 16)}."
        )
    return Predictor(open_network(path, device, style), batch_size, path)


def open_network(path: Path, device: str = "cpu", style: SettingStyle = as_argument) -> Network:
    """Load the network of a file; see `load_model`."""
    require_checkpoint(path)
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"{style('device', device)} is not a device: it must be auto, cpu or cuda.")
    if form := FORMATS.get(path.suffix.lower()):
        if form.load_error is not None:
            raise ConfigError(f"{path} {form.load_error}")
        return form.open(path, device, style)
    from pneumo.inference.torch_backend import CheckpointNetwork  # imports torch

    return CheckpointNetwork(path, device, style)


def warn_uncalibrated(rules: Rules) -> None:
    """Warn about the remarks that an uncalibrated checkpoint cannot provide."""
    missing = [
        *(["uncertain predictions"] if rules.margin is None else []),
        *(["out-of-distribution images"] if not rules.has_ood_detector else []),
    ]
    if missing:
        warn(
            f"This network does not detect {' or '.join(missing)}: its run did not calibrate it on validation images. "
            "Use checkpoints/best.ckpt of a complete run."
        )


def _paths(items: StrPath | Sequence[StrPath]) -> list[Path]:
    return [Path(item) for item in ([items] if isinstance(items, str | os.PathLike) else items)]
