from pathlib import Path

from helpers.labelled_site import write_site

from pneumo.inference.evaluate.confounding import METADATA, is_age
from pneumo.inference.evaluate.evaluation_tables import probe_table
from pneumo.inference.predictor import Predictor
from pneumo.metrics.probes import TOO_FEW_PATIENTS


def test_a_column_that_reveals_the_label_is_detected(model: Predictor, tmp_path: Path) -> None:
    table = write_site(tmp_path, images=200)
    lines = table.read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    marked = [",".join([*row, "bed 1" if row[1] == "PNEUMONIA" else "bed 2"]) for row in rows]
    table.write_text("\n".join([f"{lines[0]},ward", *marked]) + "\n")
    probes = {probe.name: probe for probe in model.evaluate(table, by=["ward"]).probes}
    assert list(probes) == [METADATA, "age", "sex", "view", "ward"]
    assert probes["ward"].auroc == 1
    assert probes["sex"].low is not None
    assert probes["sex"].low < 0.5


def test_a_column_equal_to_the_label_is_found_in_40_images(model: Predictor, tmp_path: Path) -> None:
    table = write_site(tmp_path, images=40)
    lines = [line.split(",") for line in table.read_text().splitlines()]
    rows = [",".join([*line[:-1], line[1] if index else "view"]) for index, line in enumerate(lines)]
    table.write_text("\n".join(rows) + "\n")
    evaluation = model.evaluate(table)
    (view,) = (probe for probe in evaluation.probes if probe.name == "view")
    assert view.auroc == 1
    assert view.low is not None
    assert 0.7 < view.low < 1
    assert "Labels can be predicted from view alone" in evaluation.to_html()


def test_probes_of_few_patients_are_undefined_in_all_outputs(model: Predictor, tmp_path: Path) -> None:
    evaluation = model.evaluate(write_site(tmp_path, images=12))
    content = evaluation.to_dict()["confounding"]
    assert {(each["auroc"], each["undefined"]) for each in content} == {(None, TOO_FEW_PATIENTS)}
    assert [row[1:] for row in probe_table(evaluation).rows] == [["undefined", TOO_FEW_PATIENTS]] * len(content)
    assert TOO_FEW_PATIENTS in evaluation.to_html()


def test_identifiers_and_other_columns_are_not_probed(model: Predictor, tmp_path: Path) -> None:
    table = write_site(tmp_path, images=40)
    table.write_text(table.read_text().replace("view", "report_label"))
    assert [probe.name for probe in model.evaluate(table).probes] == [METADATA, "age", "sex"]


def test_names_of_ages_are_recognised() -> None:
    assert all(map(is_age, ("age", "Age", "Patient Age", "patient_age")))
    assert not is_age("stage")
