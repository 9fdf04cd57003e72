"""TensorBoard's logger of a run: scalars, images, curves and the HPARAMS table."""

from collections.abc import Mapping

from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from scipy.stats import rankdata

from pneumo.common.text import code_block, escape_line
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.predictions import Predictions
from pneumo.reporting.figures.style import summarise_image
from pneumo.runs.status import EVENTS

# TensorBoard shows the first five hyperparameters in alphabetical order: what else describes a run sorts after these.
_PARAMETERS = {"lr": "lr", "model": "model", "optimizer": "optimizer", "seed": "seed"} | {
    f"setup/{name}": name
    for name in ("batch_size", "data", "epochs", "experiment", "image_size", "overrides", "precision")
}
_SWEPT = "set/"  # sorts between `seed` and `setup/`, so that one of them is the fifth
# Of the metrics it shows the first five as they come.
_FIRST = ("test_accuracy", "test_auroc", "test_sensitivity", "test_specificity", "train_accuracy")
_LAST = ("best_epoch", "train_seconds", "samples_per_second", "parameters_trainable", "collapsed")
_METRICS = dict.fromkeys((*_FIRST, *(f"test_{name}" for name in METRICS), *_LAST))


class RunLogger(TensorBoardLogger):
    """Writes event files directly into the run's folder, so that TensorBoard shows one run with a short name."""

    def __init__(self, save_dir: str, projector: bool = False) -> None:
        """Set the run's folder, and whether the run writes what the PROJECTOR tab shows."""
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
            if side.has_both_classes:
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

        `lr` is the rate that the run began with, `overrides` its other settings as they were given. Hyperparameters
        that differ within the run's sweep, `swept`, have a column each.
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


def run_loggers(trainer: Trainer) -> list[RunLogger]:
    """Return those of a trainer's loggers that show figures, predictions and results too."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
