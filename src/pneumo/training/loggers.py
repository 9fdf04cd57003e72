"""The TensorBoard logger: scalars, figures, curves, and one row of the HPARAMS table."""

from collections.abc import Mapping

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from scipy.stats import rankdata

from pneumo.common.text import code_block, escape_line
from pneumo.metrics.curves import has_both_classes
from pneumo.metrics.predictions import Predictions
from pneumo.reporting.figures.style import summarise_image
from pneumo.runs.results import TEST_METRICS
from pneumo.runs.status import EVENTS

# TensorBoard shows the first five hyperparameters in alphabetical order: what else describes a run sorts after these.
_PARAMETERS = {"lr": "lr", "model": "model", "optimizer": "optimizer", "seed": "seed"} | {
    f"setup/{name}": name
    for name in ("batch_size", "data", "epochs", "experiment", "image_size", "overrides", "precision")
}
_SWEPT = "set/"  # sorts between `seed` and `setup/`, so that one of them is the fifth
# Of the metrics it shows the first five as they come.
# fmt: off
_METRICS = dict.fromkeys((
    "test_accuracy", "test_auroc", "test_sensitivity", "test_specificity", "train_accuracy",
    *(f"test_{name}" for name in TEST_METRICS), "best_epoch", "train_seconds", "samples_per_second",
    "parameters_trainable", "collapsed",
))


# fmt: on


class RunLogger(TensorBoardLogger):
    """Writes event files directly into the run's folder, so that TensorBoard shows one run with a short name."""

    def __init__(self, save_dir: str, projector: bool = False) -> None:
        """Take the run's folder, and whether the run is to leave what the PROJECTOR tab shows."""
        super().__init__(save_dir, name="", version="", default_hp_metric=False, filename_suffix=EVENTS)
        self.projector = projector

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars against the number of epochs, which compares runs whatever their batches."""
        shown = {name: value for name, value in metrics.items() if name != "epoch"}
        if "epoch" in metrics:  # counts those before it; the test comes when all are over
            step = round(metrics["epoch"]) + (not any(name.startswith("test/") for name in shown))
        super().log_metrics(shown, step)

    @rank_zero_only
    def log_config(self, yaml: str) -> None:
        """Show a configuration in the TEXT tab."""
        self.experiment.add_text("config", code_block(yaml, "yaml"))

    @rank_zero_only
    def log_images(self, images: Mapping[str, bytes], epochs: int) -> None:
        """Show PNG files, by their tags, in the IMAGES tab."""
        writer = self.experiment._get_file_writer()  # add_image would unpack each file and pack it anew
        for tag, png in images.items():
            writer.add_summary(summarise_image(tag, png), epochs)

    @rank_zero_only
    def log_predictions(self, predictions: Predictions, epochs: int) -> None:
        """Show precision-recall curves of the test in the PR CURVES tab; of three classes each against the rest.

        TensorBoard's thresholds are equidistant from 0 to 1. Ranks divide the images evenly among them; probabilities,
        most of which lie near 0 and 1, would leave few of the thresholds to tell images apart.
        """
        for name, side in predictions.against_rest.items():
            if has_both_classes(side):
                quantile = rankdata(side.score, "max") / len(side.score)
                tag = f"test/precision_recall/{escape_line(name)}"
                self.experiment.add_pr_curve(tag, side.positive, quantile, epochs)

    @rank_zero_only
    def log_results(
        self,
        results: Mapping[str, str | int | float | bool],
        lr: float,
        epochs: int,
        overrides: str,
        swept: Mapping[str, str | float],
    ) -> None:
        """Write the row of the HPARAMS table; call it once, at the end, since TensorBoard ignores later ones.

        Args:
            results: What results.json holds.
            lr: The learning rate that the run began with.
            epochs: How many it took.
            overrides: The run's other settings, as they were given.
            swept: Hyperparameters that differ within the run's sweep, which have a column each.
        """
        values = {**results, "lr": lr, "overrides": overrides}
        shown = {column: values[name] for column, name in _PARAMETERS.items()}
        self.log_hyperparams(
            {**shown, **{f"{_SWEPT}{name}": value for name, value in swept.items()}},
            {f"final/{name.replace('test_', '')}": float(values[name]) for name in _METRICS},
            step=epochs,
        )
        self.finalize("success")

    @rank_zero_only
    def save(self) -> None:
        """Flush; Lightning's own way also writes hparams.yaml, which .hydra/config.yaml makes superfluous."""
        self.experiment.flush()
