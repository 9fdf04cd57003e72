from pathlib import Path

from helpers.labelled_site import write_site

from pneumo.inference.evaluate.confounding import METADATA, is_age
from pneumo.inference.predictor import Predictor


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


def test_identifiers_and_other_columns_are_not_probed(model: Predictor, tmp_path: Path) -> None:
    table = write_site(tmp_path, images=40)
    table.write_text(table.read_text().replace("view", "report_label"))
    assert [probe.name for probe in model.evaluate(table).probes] == [METADATA, "age", "sex"]


def test_names_of_ages_are_recognised() -> None:
    assert all(map(is_age, ("age", "Age", "Patient Age", "patient_age")))
    assert not is_age("stage")
