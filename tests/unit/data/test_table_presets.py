from pathlib import Path

import pytest

from pneumo.data.label_table import LabelTable, read_label_table
from pneumo.errors import DataError

_FINDINGS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)

_PATH = "CheXpert-v1.0-small/train/patient{:05d}/study1/view1_frontal.jpg"


def read(folder: Path, preset: str, *lines: str) -> LabelTable:
    path = folder / "published.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_label_table(path, preset)


def rows(table: LabelTable) -> list[tuple[str, ...]]:
    return list(zip(*table.columns.values(), strict=True))


@pytest.mark.parametrize("end", [",", ""])  # the first release has a comma at the end of each line
def test_nih(end: str, tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "nih",
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        f"OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]{end}",
        f"00000001_000.png,Cardiomegaly|Pneumonia,0,1,058Y,M,PA,2682,2749,0.143,0.143{end}",
        f"00000002_000.png,No Finding,0,2,011M,F,AP,2500,2048,0.168,0.168{end}",
        f"00000002_001.png,Effusion,0,2,81,F,AP,2500,2048,0.168,0.168{end}",
    )
    assert [*table.columns] == ["file", "label", "patient", "age", "sex", "view"]
    assert rows(table) == [
        ("00000001_000.png", "PNEUMONIA", "1", "58", "M", "PA"),
        ("00000002_000.png", "NORMAL", "2", "0", "F", "AP"),
    ]
    assert table.lines == (2, 3)
    assert table.skipped == (("00000002_001.png", "other findings"),)


def test_nih_with_the_column_sex(tmp_path: Path) -> None:
    table = read(tmp_path, "nih", "Image Index,Finding Labels,Patient Sex", "a.png,No Finding,F")
    assert rows(table) == [("a.png", "NORMAL", "", "", "F", "")]


def test_rsna_with_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = read(
        tmp_path,
        "rsna",
        "patientId,class",
        "0004cfab,No Lung Opacity / Not Normal",
        "00436515,Lung Opacity",
        "00436515,Lung Opacity",
        "003d8fa0,Normal",
        "00aecb01,Normal",
        "00aecb01,Lung Opacity",
    )
    assert rows(table) == [("00436515", "PNEUMONIA", "00436515"), ("003d8fa0", "NORMAL", "003d8fa0")]
    assert table.lines == (3, 5)
    assert table.suffixes[0] == ".dcm"
    assert not caplog.messages
    assert table.skipped == (("0004cfab", "not normal, without lung opacity"), ("00aecb01", "readers disagree"))


def test_rsna_with_boxes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = read(
        tmp_path,
        "rsna",
        "patientId,x,y,width,height,Target",
        "0004cfab,,,,,0",
        "00436515,264.0,152.0,213.0,379.0,1",
        "00436515,562.0,152.0,256.0,453.0,1",
        "unlabelled,,,,,",
    )
    assert [row[:2] for row in rows(table)] == [("0004cfab", "NORMAL"), ("00436515", "PNEUMONIA")]
    assert table.skipped == (("unlabelled", "no label"),)
    assert len(caplog.messages) == 1
    assert "stage_2_detailed_class_info.csv" in caplog.messages[0]


@pytest.mark.parametrize("findings", [_FINDINGS, _FINDINGS.replace(" ", "_")])
def test_chexpert(findings: str, tmp_path: Path) -> None:
    names = _FINDINGS.split(",")

    def line(patient: int, view: str, **values: str) -> str:
        side, _, position = view.partition(" ")
        cells = [values.get(name.replace(" ", "_"), "") for name in names]
        return ",".join((_PATH.format(patient), "Female", "68", side, position, *cells))

    table = read(
        tmp_path,
        "chexpert",
        f"Path,Sex,Age,Frontal/Lateral,AP/PA,{findings}",
        line(1, "Frontal AP", Pneumonia="1.0", Support_Devices="1.0"),
        line(2, "Frontal PA", No_Finding="1.0"),
        line(3, "Frontal PA", Pneumonia="-1.0", No_Finding="1.0"),
        line(4, "Frontal PA", Pneumonia="0.0", Edema="1.0"),
        line(5, "Frontal PA", Pneumonia="1", No_Finding="1"),
        line(6, "Lateral", No_Finding="1.0"),
        line(7, "Frontal PA", Edema="1.0"),
    )
    assert rows(table) == [
        (
            "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg",
            "PNEUMONIA",
            "patient00001",
            "68",
            "F",
            "AP",
        ),
        ("CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg", "NORMAL", "patient00002", "68", "F", "PA"),
    ]
    reasons = ["uncertain label", "other findings", "contradictory labels", "lateral view", "other findings"]
    assert [reason for _, reason in table.skipped] == reasons


def test_vindr(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "vindr",
        "image_id,rad_ID,No finding,Bronchitis,Brocho-pneumonia,Other disease,Bronchiolitis,Pneumonia,Pleuro-pneumonia",
        "one,R1,1.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "two,R1,0,0,1,0,0,0,0",
        "two,R2,0,0,0,0,0,1,0",
        "two,R3,1,0,0,0,0,0,0",
        "three,R1,0,0,0,0,0,1,0",
        "three,R2,1,0,0,0,0,0,0",
        "four,R1,0,0,0,0,1,0,0",
    )
    assert rows(table) == [("one", "NORMAL"), ("two", "PNEUMONIA")]
    assert table.skipped == (("three", "readers disagree"), ("four", "other findings"))
    assert table.values("patient") == ("", "")


def test_columns_can_be_added_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text("Image Index,Finding Labels,Patient ID,Clinic,Code\na.png,No Finding,1,West,c1\n")
    table = read_label_table(path, "nih", {"site": "Clinic", "patient": "Code"})
    assert (table.values("site"), table.values("patient")) == (("West",), ("c1",))


@pytest.mark.parametrize(
    ("preset", "lines", "message"),
    [
        ("nih", ("file,label", "a,N"), "no column Image Index and no column Finding Labels"),
        ("rsna", ("patientId,x", "a,1"), "no column class or Target"),
        ("nih", ("Image Index,Finding Labels", "a.png,Edema", "b.png,Mass"), "2 other findings"),
        ("nih", ("Image Index,Finding Labels", "a.png,Pneumonia", "a.png,Pneumonia"), "more than once"),
        ("vindr", ("image_id,Pneumonia,No finding", ",1,0"), "without a file"),
    ],
)
def test_other_tables_are_rejected(preset: str, lines: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, preset, *lines)
