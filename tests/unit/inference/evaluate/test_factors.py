from pathlib import Path

import numpy as np
import pytest
from helpers.labelled_site import CLASSES, write_images, write_site

from pneumo.data.labelled_images import LabelledSet
from pneumo.errors import ConfigError
from pneumo.inference.evaluate.caveats import assess
from pneumo.inference.evaluate.evaluation_tables import difference_table, subgroup_table
from pneumo.inference.evaluate.factors import choose_factors
from pneumo.inference.predictor import Predictor


def columns(*names: str) -> LabelledSet:
    return LabelledSet("site", (), names, ())


def test_names_are_matched_without_case_and_exact_names_first() -> None:
    assert choose_factors(columns("age", "Sex"), ["Age", "sex", "AGE"]) == ["age", "Sex"]
    assert choose_factors(columns("age", "Age"), ["Age", "age"]) == ["Age", "age"]
    with pytest.raises(ConfigError, match="several columns: age, Age"):
        choose_factors(columns("age", "Age"), ["AGE"])


@pytest.mark.parametrize("name", ["patient", "file", "label", "Patient"])
def test_standard_columns_are_not_factors(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--by {name} is not a factor.* columns age. Use one of these"):
        choose_factors(columns("age"), [name])


@pytest.mark.parametrize("name", ["patient", "view"])
def test_folders_have_no_columns_to_choose(name: str, tmp_path: Path, model: Predictor) -> None:
    for label in CLASSES:
        write_images(tmp_path, [f"{label}/{index}.png" for index in range(2)], np.array([100, 150]))
    with pytest.raises(ConfigError, match=f"--by {name}") as error:
        model.evaluate(tmp_path, by=name)
    assert "Use one of these" not in str(error.value)


@pytest.mark.parametrize(("column", "value"), [("age", "19500101"), ("ward", "")])
def test_a_column_without_known_values_is_a_note(column: str, value: str, tmp_path: Path, model: Predictor) -> None:
    table = write_site(tmp_path, images=20)
    lines = [line.split(",") for line in table.read_text().splitlines()]
    rows = [",".join([*line[:3], *line[4:], value if index else column]) for index, line in enumerate(lines)]
    table.write_text("\n".join(rows) + "\n")
    (found,) = (each for each in assess(model.evaluate(table, by=[column])) if each.check == "unknown_column")
    assert found.severity == "note"
    expected = f"no value of the column {column} can be read, such as {value}" if value else f"column {column} is empty"
    assert expected in found.message


def test_sites_that_the_data_lack_are_named(tmp_path: Path, model: Predictor) -> None:
    with pytest.raises(ConfigError, match="--by site needs sites, but the data have none"):
        model.evaluate(write_site(tmp_path, images=8), by=["site"])


def test_of_many_levels_the_largest_are_shown_and_all_are_kept(tmp_path: Path, model: Predictor) -> None:
    table = write_site(tmp_path, images=60)
    lines = table.read_text().splitlines()
    wards = ["A"] * 22 + [f"W{index}" for index in range(38)]
    table.write_text("\n".join([f"{lines[0]},ward", *map(",".join, zip(lines[1:], wards, strict=True))]) + "\n")
    evaluation = model.evaluate(table, by=["ward"])
    content = evaluation.to_dict()
    assert len(subgroup_table(evaluation).rows) == 15
    assert {row[0] for row in difference_table(evaluation).rows} == {"ward: A"}
    assert len(content["subgroups"]) == 39
    assert [each["untested"] is None for each in content["subgroups"]] == [True] + [False] * 38
    page = evaluation.to_html()
    assert "24 more" in page
    assert "fewer than 10 images are not tested" in page
