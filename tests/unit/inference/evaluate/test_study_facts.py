import re
from pathlib import Path

import pytest

from pneumo.inference.evaluate.checklist import FACTS, build_checklist, count_filled
from pneumo.inference.evaluate.evaluation import Evaluation
from pneumo.inference.evaluate.study_facts import collect_facts
from pneumo.inference.predictor import load_model


def test_facts_are_those_of_the_evaluation(evaluation: Evaluation) -> None:
    facts = collect_facts(evaluation)
    assert facts.keys() <= FACTS.keys()
    assert (facts["images"], facts["class_counts"]) == ("120", "60 NORMAL, 60 PNEUMONIA")
    counts = [int(part.split()[0]) for part in facts["cross_table"].split(", ")]
    assert sum(counts) == 120
    assert f"AUROC {evaluation.metrics['auroc'].value:.3f}" in facts["metrics"]
    assert "view: AP" in facts["characteristics"] or "view: PA" in facts["characteristics"]
    assert facts["unreadable"] == "No file was unreadable"
    assert "central" not in facts["preprocessing"]
    assert not [text for name, text in facts.items() if name != "warnings" and re.search(r"\d%", text)]
    assert not any(text.endswith(".") for text in facts.values())


def test_items_without_a_fact_remain_gaps(evaluation: Evaluation) -> None:
    counts = count_filled(build_checklist(collect_facts(evaluation)))
    assert all(0 < count.filled < count.filled + count.partly < count.total for count in counts.values())


def test_no_metric_is_listed_twice_in_an_item(evaluation: Evaluation) -> None:
    items = {(item.guideline, item.number): item.entry for item in build_checklist(collect_facts(evaluation))}
    for item in (("CLAIM 2024", "37"), ("TRIPOD+AI 2024", "23a")):
        assert items[item].split(" age ")[0].count("Brier score") == 1
        assert "calibration intercept" in items[item]


def test_a_run_adds_facts_on_training(
    finished: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluation = load_model(finished / "checkpoints" / "best.ckpt", "cpu").evaluate(site)
    facts = collect_facts(evaluation)
    assert "adam" in facts["training"]
    assert facts["threshold_origin"]
    assert facts["internal_metrics"].startswith("AUROC")
