import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pneumo.inference.backend import Rules
from pneumo.inference.prediction import NOTICE, OOD_REMARK, Prediction, to_terminal

RULES = Rules("timm/x", ("NORMAL", "PNEUMONIA"), 32, 1.0, 0.5, 0.3, True)
CONFIDENT = Prediction(Path("a"), {"NORMAL": 0.00001, "PNEUMONIA": 0.99999}, "PNEUMONIA", False, 0.2)
UNCERTAIN_OOD = Prediction(Path("b"), {"NORMAL": 0.55, "PNEUMONIA": 0.45}, "NORMAL", True, 3.0)


def render(predictions: list[Prediction], rules: Rules = RULES, saved: bool = False) -> list[str]:
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=True, color_system=None)
    console.print(to_terminal(predictions, rules, saved))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1] == NOTICE
    return [" ".join(line.split()) for line in lines]


def test_each_of_a_few_files_has_a_row() -> None:
    lines = render(
        [
            replace(CONFIDENT, path=Path("[a].png")),
            replace(UNCERTAIN_OOD, path=Path("b.dcm"), notes=("it is a lateral view",)),
            Prediction(Path("c.txt"), error="is text."),
        ]
    )
    assert "[a].png >0.999 PNEUMONIA" in lines
    (row,) = (index for index, line in enumerate(lines) if line.startswith("b.dcm 0.450 NORMAL"))
    assert f"uncertain; {OOD_REMARK}; it is a lateral view" in " ".join(lines[row : row + 3])
    assert "c.txt unreadable, see above" in lines


def test_each_of_three_classes_has_a_column() -> None:
    rules = Rules("timm/x", ("NORMAL", "BACTERIAL", "VIRAL"), 32, 1.0, 0.5, 0.3, True)
    probability = dict(zip(rules.classes, (0.2, 0.3, 0.5), strict=True))
    lines = render([Prediction(Path("a.png"), probability, "VIRAL", False, 0)], rules)
    assert "file NORMAL BACTERIAL VIRAL predicted class remarks" in lines
    assert "a.png 0.200 0.300 0.500 VIRAL" in lines


def test_many_files_are_counted() -> None:
    many = [CONFIDENT] * 1200 + [replace(UNCERTAIN_OOD, notes=("turned",))] * 30
    many += [Prediction(Path("c"), error="is text.")] * 2
    many += [replace(CONFIDENT, notes=(f"it has little contrast (greys from 0 to {maximum})",)) for maximum in (9, 10)]
    lines = render(many)
    for line in (
        "1,234 files",
        "images",
        "predicted NORMAL 30",
        "predicted PNEUMONIA 1,202",
        "uncertain 30",
        f"{OOD_REMARK} 30",
        "turned 30",
        "it has little contrast 2",
        "unreadable, listed above 2",
    ):
        assert line in lines
    assert any("--csv" in line for line in lines)
    assert not any("--csv" in line for line in render(many, saved=True))


def test_the_logit_margin_ranks_probabilities_that_round_to_one() -> None:
    for margin in (-90.0, -20.0, 0.5, 20.0, 30.0, 90.0):
        probability = tuple((1 / (1 + np.exp([margin, -margin]))).astype(np.float32).tolist())
        assert margin_of(*probability) == pytest.approx(margin, abs=0.01 if abs(margin) > 80 else 1e-5)
    assert margin_of(1e-20, 0.3, 0.7) == pytest.approx(20 * np.log(10))
    assert np.isfinite(margin_of(0.0, 1.0))


def margin_of(*probability: float) -> float:
    return Prediction(Path("a"), {str(i): value for i, value in enumerate(probability)}).logit_margin
