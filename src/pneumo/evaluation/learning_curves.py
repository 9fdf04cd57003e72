"""Learning curves: what each epoch of training came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pneumo.evaluation.figures import COLOURS, STYLE, WIDE, head, name_run
from pneumo.evaluation.results import Results

CURVES = {"loss": "loss (cross entropy)", "auroc": "AUROC", "accuracy": "accuracy"}
_SIDES = {"train": ("training", COLOURS[4], "--"), "val": ("validation", COLOURS[0], "-")}


def draw_learning_curves(epochs: Sequence[Mapping[str, float]], images: Mapping[str, int], results: Results) -> Figure:
    """Draw loss, AUROC and accuracy of training and validation over epochs, and mark the one that was tested.

    Args:
        epochs: Each epoch's number and metrics, as `pneumo.callbacks.History` keeps them.
        images: How many there are in train and val.
        results: The run's.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 3.1))
        figure.subplots_adjust(left=0.07, right=0.985, bottom=0.26, top=0.79, wspace=0.25)
        count, best = int(results["epochs"]), int(results["best_epoch"])
        numbers = [each["epoch"] for each in epochs]  # not all, if an older version began the run
        for axes, (name, title) in zip(figure.subplots(1, len(CURVES)), CURVES.items(), strict=True):
            axes.axvline(best, color="#333333", lw=1.2, ls=":", label=f"tested: epoch {best}")
            for side, (words, colour, dashes) in _SIDES.items():
                values = [each[f"{side}/{name}"] for each in epochs]
                label = f"{words} ({images[side]:,} images)"
                axes.plot(numbers, values, f"o{dashes}", color=colour, lw=1.8, ms=4, mec="white", mew=0.5, label=label)
            axes.set(title=title, xlabel="epoch", xlim=(0.5, count + 0.5))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=9)
        head(figure, f"{name_run(results)}, {count} epoch{'s' if count > 1 else ''}")
    return figure
