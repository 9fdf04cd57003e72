from typing import Any

import pytest
from helpers.hostile_names import NAMES, is_harmless
from markdown_it import MarkdownIt
from starlette.testclient import TestClient

from pneumo.inference.backend import Rules
from pneumo.inference.predictor import Predictor
from pneumo.inference.serve.app import make_app
from pneumo.metrics.intervals import Estimate
from pneumo.reporting.rendering import render
from pneumo.reporting.run_summary import STATE_NOTES
from pneumo.runs.result_rules import RESULT_NAMES


def card(name: str) -> str:
    """Render the model card of a run in which every name is `name`."""
    names = ("model", "optimizer", "experiment", "data", "split", "precision", "device", "threshold_rule", "git_commit")
    results = {**dict.fromkeys(RESULT_NAMES, 0.5), **dict.fromkeys(names, name), "task": "pneumonia", "fold": -1}
    config: dict[str, Any] = {
        "model": {"architecture": name, "weights": name, "freeze": False},
        "data": {"crop_pct": 1.0},
        "fine_tuning": {"warm_up": True, "lr_decay": 1.0},
        "callbacks": {"best": {"monitor": name}},
        "loss": {"balance": False, "label_smoothing": 0.0},
        "optimizer": {"lr": name},
        "decision": {"temperature": False, "sensitivity": 0.9, "flip": False},
    }
    part = {"name": name, "images": 1, "patients": 1, "classes": {name: 1}}
    lists: dict[str, Any] = {"splits": [part], "classes": [name], "metrics": [("accuracy", Estimate(0.5, 0.5, 0.5))]}
    lists |= {"outputs": [name], "recorded": [name]}
    texts: dict[str, Any] = {"augmentation": name, "gap": f"From {name}.", "state_notes": STATE_NOTES}
    texts |= {"conversion": "resized", "kermany": False, "positive": name, "table": False, "patients_source": ""}
    return render("model_card.md", results=results, config=config, tested=1, **texts, **lists)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_escaped_in_the_model_card(name: str) -> None:
    text, plain = card(name), card("plain")
    assert is_harmless(text)
    assert text.count("\n") == plain.count("\n")
    shown, expected = (MarkdownIt("commonmark").enable("table").render(each) for each in (text, plain))
    for tag in ("<a ", "<img", "<b>", "<strong>", "<em>", "<code>", "<td>", "<th>", "<h1>", "<li>", "<p>"):
        assert shown.count(tag) == expected.count(tag), tag


class RulesOnly:
    """A classifier that has only `rules`, all that the page shows."""

    batch_size = 1

    def __init__(self, name: str) -> None:
        self.rules = Rules(name, ("NORMAL", name), 32, 1.0, 0.5, 0.3, True)


@pytest.mark.parametrize("name", [*NAMES, "</script><script>alert(1)</script>", "' onload='alert(1)"])
def test_names_are_escaped_in_the_served_page(name: str) -> None:
    pages = []
    for each in (name, "plain"):
        app = make_app(Predictor(RulesOnly(each)), None, ["localhost"])  # type: ignore[arg-type] # has rules only
        pages.append(TestClient(app, base_url="http://localhost").get("/").text.replace('\\"', ""))
    text, plain = pages
    assert is_harmless(text)
    for mark in ("<", ">", '"'):
        assert text.count(mark) == plain.count(mark)
