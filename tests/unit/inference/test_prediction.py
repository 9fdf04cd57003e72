import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pneumo.inference.backend import Rules
from pneumo.inference.prediction import NOTICE, OOD_REMARK, Prediction, format_probability, to_terminal

RULES = Rules("timm/x", ("NORMAL", "PNEUMONIA"), 32, 1.0, 0.5, 0.3, True)
SURE = Prediction(Path("a"), {"NORMAL": 0.00001, "PNEUMONIA": 0.99999}, "PNEUMONIA", False, 0.2)
UNSURE = Prediction(Path("b"), {"NORMAL": 0.55, "PNEUMONIA": 0.45}, "NORMAL", True, 3.0)


def shown(predictions: list[Prediction], rules: Rules = RULES, kept: bool = False) -> list[str]:
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=True, color_system=None)
    console.print(to_terminal(predictions, rules, kept))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1] == NOTICE
    return [" ".join(line.split()) for line in lines]


def test_a_few_files_get_a_row_each() -> None:
    lines = shown(
        [
            replace(SURE, path=Path("[a].png")),
            replace(UNSURE, path=Path("b.dcm"), notes=("it is a lateral view",)),
            Prediction(Path("c.txt"), error="is text."),
        ]
    )
    assert "[a].png >0.999 PNEUMONIA" in lines
    (row,) = (number for number, line in enumerate(lines) if line.startswith("b.dcm 0.450 NORMAL"))
    assert f"uncertain; {OOD_REMARK}; it is a lateral view" in " ".join(lines[row : row + 3])
    assert "c.txt unreadable, as said above" in lines


def test_three_classes_get_a_column_each() -> None:
    rules = Rules("timm/x", ("NORMAL", "BACTERIAL", "VIRAL"), 32, 1.0, 0.5, 0.3, True)
    shares = dict(zip(rules.classes, (0.2, 0.3, 0.5), strict=True))
    lines = shown([Prediction(Path("a.png"), shares, "VIRAL", False, 0)], rules)
    assert "file NORMAL BACTERIAL VIRAL called remarks" in lines
    assert "a.png 0.200 0.300 0.500 VIRAL" in lines


def test_many_files_are_counted() -> None:
    many = [SURE] * 1200 + [replace(UNSURE, notes=("turned",))] * 30
    many += [Prediction(Path("c"), error="is text.")] * 2
    many += [replace(SURE, notes=(f"it has little contrast (greys from 0 to {most})",)) for most in (9, 10)]
    lines = shown(many)
    for line in (
        "1,234 files",
        "called NORMAL 30",
        "called PNEUMONIA 1,202",
        "uncertain 30",
        f"{OOD_REMARK} 30",
        "turned 30",
        "it has little contrast 2",
        "unreadable, named above 2",
    ):
        assert line in lines
    assert any("--csv" in line for line in lines)
    assert not any("--csv" in line for line in shown(many, kept=True))


def test_no_share_is_shown_as_what_it_is_not() -> None:
    assert [format_probability(x) for x in (0, 0.0004, 0.0006, 0.5, 0.9994, 0.9996, 1)] == [
        *("0.000", "<0.001", "0.001", "0.500", "0.999", ">0.999", "1.000")
    ]


def test_the_margin_ranks_films_whose_probability_rounds_to_one() -> None:
    for margin in (-90.0, -20.0, 0.5, 20.0, 30.0, 90.0):
        shares = tuple((1 / (1 + np.exp([margin, -margin]))).astype(np.float32).tolist())
        assert margin_of(*shares) == pytest.approx(margin, abs=0.01 if abs(margin) > 80 else 1e-5)
    assert margin_of(1e-20, 0.3, 0.7) == pytest.approx(20 * np.log(10))
    assert np.isfinite(margin_of(0.0, 1.0))


def margin_of(*shares: float) -> float:
    return Prediction(Path("a"), {str(i): share for i, share in enumerate(shares)}).logit_margin
