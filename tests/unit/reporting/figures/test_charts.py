import numpy as np
import pytest

from pneumo.reporting.figures.charts import CURVES, draw_learning_curves
from pneumo.runs.results import Results


@pytest.mark.parametrize("epochs", [1, 7])
def test_learning_curves_show_all_epochs(epochs: int) -> None:
    names = [f"{stage}/{name}" for stage in ("train", "val") for name in CURVES]
    history = [{"epoch": n + 1, **{name: n / 10 + k for k, name in enumerate(names)}} for n in range(epochs)]
    results: Results = {"model": "resnext", "optimizer": "sgd", "seed": 0, "epochs": epochs, "best_epoch": epochs}
    figure = draw_learning_curves(history, {"train": 5216, "val": 16}, results)
    for axes, name in zip(figure.axes, CURVES, strict=True):
        mark, *lines = axes.lines
        assert set(np.asarray(mark.get_xdata()).tolist()) == {epochs}
        for line, stage in zip(lines, ("train", "val"), strict=True):
            assert np.asarray(line.get_xdata()).tolist() == list(range(1, epochs + 1))
            assert np.asarray(line.get_ydata()).tolist() == [each[f"{stage}/{name}"] for each in history]
        assert all(float(tick).is_integer() for tick in axes.get_xticks())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        f"tested: epoch {epochs}",
        "training (5,216 images)",
        "validation (16 images)",
    ]
