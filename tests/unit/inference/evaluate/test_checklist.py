from collections import Counter

import pytest

from pneumo.inference.evaluate.checklist import DOIS, FACTS, ItemCounts, build_checklist, count_filled

TRIPOD = (
    "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17 "
    "18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
)
NUMBERS = {
    "STARD 2015": [
        *map(str, range(1, 10)),
        *("10a", "10b", "11", "12a", "12b", "13a", "13b"),
        *map(str, range(14, 21)),
        *("21a", "21b"),
        *map(str, range(22, 31)),
    ],
    "CLAIM 2024": [str(number) for number in range(1, 45)],
    "TRIPOD+AI 2024": TRIPOD.split(),
}
ALL = {name: f"<{name}>" for name in FACTS}


@pytest.mark.parametrize("guideline", DOIS)
def test_every_published_number_occurs_once_in_order(guideline: str) -> None:
    items = [item for item in build_checklist({}) if item.guideline == guideline]
    assert [item.number for item in items] == NUMBERS[guideline]
    assert max(Counter(item.text for item in items).values()) == 1
    assert all(item.text.strip() for item in items)


def test_all_guidelines_are_known() -> None:
    assert {item.guideline for item in build_checklist({})} == DOIS.keys() == NUMBERS.keys()


def test_without_facts_only_constant_entries_are_given() -> None:
    filled = [(item.guideline, item.number) for item in build_checklist({}) if item.entry]
    assert filled == [("STARD 2015", "13a"), ("TRIPOD+AI 2024", "9a"), ("TRIPOD+AI 2024", "9b")]


def test_every_fact_is_used_and_no_placeholder_remains() -> None:
    entries = " ".join(item.entry for item in build_checklist(ALL))
    assert [name for name in FACTS if f"<{name}>" not in entries] == []
    assert "{" not in entries
    assert "|" not in entries


@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_fills_items_only_with_sentences_that_are_complete(fact: str) -> None:
    without = {name: text for name, text in ALL.items() if name != fact}
    for item in build_checklist(without):
        assert f"<{fact}>" not in item.entry
        assert "None" not in item.entry
    assert build_checklist(without | {fact: ""}) == build_checklist(without)


def test_a_sentence_needs_all_of_its_facts() -> None:
    def cut_off(**facts: str) -> str:
        items = build_checklist(facts)
        return next(item.entry for item in items if (item.guideline, item.number) == ("STARD 2015", "12a"))

    assert cut_off(threshold="0.4") == ""
    assert cut_off(threshold="0.4", threshold_origin="selected before") == "Threshold 0.4, selected before."


def test_items_that_only_an_author_can_write_stay_gaps() -> None:
    gaps = {(item.guideline, item.number) for item in build_checklist(ALL) if not item.entry}
    assert {("STARD 2015", "30"), ("CLAIM 2024", "44"), ("TRIPOD+AI 2024", "17"), ("STARD 2015", "6")} <= gaps


def test_counts_are_those_of_the_items() -> None:
    items = build_checklist(ALL)
    counts = count_filled(items)
    assert [count.total for count in counts.values()] == [34, 44, 52]
    assert sum(count.filled + count.partly for count in counts.values()) == sum(bool(item.entry) for item in items)
    assert ItemCounts(8, 6, 34).describe() == "8 of 34 items and 6 partly"
    assert ItemCounts(8, 0, 34).describe() == "8 of 34 items"


def test_items_that_require_more_than_an_evaluation_contains_are_filled_partly() -> None:
    states = {(item.guideline, item.number): item.state for item in build_checklist(ALL)}
    assert states["STARD 2015", "8"] == states["TRIPOD+AI 2024", "22"] == "partly"
    assert states["STARD 2015", "23"] == states["STARD 2015", "24"] == "filled"
    assert states["CLAIM 2024", "13"] == states["STARD 2015", "30"] == "gap"
    assert {item.state for item in build_checklist({}) if not item.entry} == {"gap"}


def test_an_unknown_fact_is_an_error() -> None:
    with pytest.raises(ValueError, match="picures"):
        build_checklist({"picures": "3"})


def test_braces_in_facts_are_literal() -> None:
    items = build_checklist({"data": "{images} {0}"})
    assert next(item for item in items if item.number == "8").entry == "Data sets: {images} {0}."
