"""TensorBoard logger of a run: scalars, images, curves and the HPARAMS table."""

from collections.abc import Mapping

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from scipy.stats import rankdata

from pneumo.common.text import code_block, escape_line
from pneumo.metrics.predictions import Predictions
from pneumo.reporting.figures.style import summarise_image
from pneumo.runs.results import Results
from pneumo.runs.status import EVENTS
from pneumo.training.tracking import Setup, by_epoch, final_metrics

# TensorBoard shows the first five hyperparameters in alphabetical order; the prefix sorts all others after these.
_PARAMETERS = {"lr": "lr", "model": "model", "optimizer": "optimizer", "seed": "seed"} | {
    f"setup/{name}": name
    for name in ("batch_size", "data", "epochs", "experiment", "image_size", "overrides", "precision")
}
_SWEPT = "set/"  # sorts between `seed` and `setup/`, so that the fifth one differs within the sweep


class RunLogger(TensorBoardLogger):
    """TensorBoard logger that writes directly to the run folder, so that TensorBoard shows one short run name."""

    def __init__(self, save_dir: str, projector: bool = False) -> None:
        """Initialize with the run folder, and whether to write the PROJECTOR tab."""
        super().__init__(save_dir, name="", version="", default_hp_metric=False, filename_suffix=EVENTS)
        self.projector = projector

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars by the number of epochs."""
        super().log_metrics(*by_epoch(metrics, step))

    @rank_zero_only
    def log_setup(self, setup: Setup) -> None:
        """Log the configuration to the TEXT tab; `log_results` logs the hyperparameters."""
        self.experiment.add_text("config", code_block(setup.yaml, "yaml"))

    @rank_zero_only
    def log_images(self, images: Mapping[str, bytes], epochs: int) -> None:
        """Log PNG files by their tags to the IMAGES tab."""
        writer = self.experiment._get_file_writer()  # add_image would decode and re-encode each file
        for tag, png in images.items():
            writer.add_summary(summarise_image(tag, png), epochs)

    @rank_zero_only
    def log_predictions(self, predictions: Predictions, epochs: int) -> None:
        """Log precision-recall curves of the test to the PR CURVES tab; with more classes, one-vs-rest.

        TensorBoard's thresholds are equidistant from 0 to 1, and most probabilities are near 0 or 1. Ranks are used
        instead, since they distribute the images evenly among the thresholds.
        """
        for name, binary in predictions.one_vs_rest.items():
            if binary.has_both_classes:
                quantile = rankdata(binary.score, "max") / len(binary.score)
                tag = f"test/precision_recall/{escape_line(name)}"
                self.experiment.add_pr_curve(tag, binary.positive, quantile, epochs)

    @rank_zero_only
    def log_results(self, results: Results, setup: Setup, epochs: int) -> None:
        """Write the run's row of the HPARAMS table; call it once, since TensorBoard ignores later calls."""
        values = {**setup.hyperparameters, **results}
        shown = {column: values[name] for column, name in _PARAMETERS.items()}
        swept = {f"{_SWEPT}{name}": value for name, value in setup.swept.items()}
        self.log_hyperparams({**shown, **swept}, final_metrics(results), step=epochs)
        self.finalize("success")

    def close(self, failed: bool) -> None:
        """Do nothing: `log_results` has written all events."""

    @rank_zero_only
    def save(self) -> None:
        """Flush, without Lightning's hparams.yaml, which would repeat .hydra/config.yaml."""
        self.experiment.flush()
