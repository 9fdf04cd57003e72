import re
from html.parser import HTMLParser
from pathlib import Path

from helpers.labelled_site import write_site

from pneumo.inference.evaluate.evaluation import Evaluation
from pneumo.inference.evaluate.evaluation_page import plot_figures
from pneumo.inference.predictor import Predictor


class Links(HTMLParser):
    """Collects the addresses that a page loads, and its ids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("src", "href"):
                self.addresses.append(str(value))
            if name == "id":
                self.ids.append(str(value))


def test_the_page_is_self_contained(evaluation: Evaluation) -> None:
    page = evaluation.to_html()
    links = Links(page)
    assert links.ids == ["roc", "calibration", "decision_curve", "scores", "subgroups"]
    assert links.addresses
    assert all(address.startswith("data:") for address in links.addresses)
    assert not re.search(r"@import|url\(|<script", page)


def test_the_page_shows_all_tables_and_marks_gaps_of_the_checklists(evaluation: Evaluation) -> None:
    page = evaluation.to_html()
    for text in ("Predictive values", "Calibration", "Subgroups", "Comparison on the same images", "STARD 2015"):
        assert text in page
    auroc = evaluation.metrics["auroc"]
    assert f"{auroc.value:.3f}" in page
    assert "to be written" in page
    assert "Not a medical device" in page


def test_hostile_names_are_escaped(tmp_path: Path, model: Predictor) -> None:
    table = write_site(tmp_path / "<b>x&amp;", images=30)
    table.write_text(table.read_text().replace("AP", "<script>alert(1)</script>").replace("PA", "$x_1\x1b[31m"))
    page = model.evaluate(table, by=["view"]).to_html()
    assert "<script" not in page
    assert "\x1b" not in page


def test_figures_of_the_same_data_are_identical(evaluation: Evaluation) -> None:
    assert plot_figures(evaluation) == plot_figures(evaluation)
