from pathlib import Path

import pytest

from pneumo.data.label_table import read_label_table
from pneumo.errors import ConfigError, DataError


def write(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_standard_and_other_columns_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "Age,FILE, Label ,Site\n70,a.png, NORMAL,A\n,b.png,COVID,\n")
    table = read_label_table(path)
    assert table.columns == {
        "Age": ("70", ""),
        "file": ("a.png", "b.png"),
        "label": ("NORMAL", "COVID"),
        "site": ("A", ""),
    }
    assert table.lines == (2, 3)
    assert table.values("patient") == ("", "")
    assert table.extra_columns == ("Age",)
    assert (table.path, table.preset, table.suffixes, table.skipped) == (path, None, (), ())


def test_columns_are_renamed(tmp_path: Path) -> None:
    path = write(tmp_path, "Image Index,Finding,label,ID\nx.png,N,old,p1\n")
    columns = {"file": "image index", "label": "Finding", "patient": " ID "}
    table = read_label_table(path, columns=columns)
    assert table.columns == {"file": ("x.png",), "label": ("N",), "patient": ("p1",)}


def test_one_column_may_have_two_meanings(tmp_path: Path) -> None:
    table = read_label_table(write(tmp_path, "file,label,ID\nx.png,N,p1\n"), columns={"patient": "ID", "site": "ID"})
    assert table.columns == {"file": ("x.png",), "label": ("N",), "patient": ("p1",), "site": ("p1",)}
    table = read_label_table(write(tmp_path, "File,label\nx.png,N\n"), columns={"patient": "File"})
    assert table.columns == {"file": ("x.png",), "label": ("N",), "patient": ("x.png",)}


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("filename,label\na,N\n", ("no column file (is it filename?)", "filename, label", "use --column file=COLUMN")),
        ("file,labels,x\na,N,1\n", ("no column label (is it labels?)",)),
        ("a,b\n1,2\n", ("no column file and no column label", "a, b")),
        ("file|label\na|N\n", ("Separate its columns",)),
        ("Image Index,Finding Labels\na,No Finding\n", ("ChestX-ray14", "--preset nih")),
        ("Path,No Finding,Pneumonia\na,1,\n", ("--preset chexpert",)),
        ("patientId,Target\na,1\n", ("preset rsna",)),
        ("image_id,rad_ID,No finding,Pneumonia\na,R1,1,0\n", ("preset vindr",)),
        ("file,label,label\na,N,P\n", ("2 columns named 'label'",)),
        ("file,Label,LABEL\na,N,P\n", ("Label and LABEL", "both mean label")),
        ("file,label\na,N\n,N\n,P\n", ("2 rows without a file (lines 3, 4)",)),
        ("file,label\na,N\nb,\n", ("1 row without a label (line 3)",)),
        (
            "file,label\na,N\nb,P\na,N\n",
            ("1 file more than once", "same label", "a is in lines 2, 4", "delete the others"),
        ),
        (
            "file,label\nx/a,N\nb,P\nx\\a,P\n./b,P\n",
            ("2 files", "different labels in 1 case", "keep the one with the correct label"),
        ),
        ("file,label\n" + "a,N\n" * 5, ("lines 2, 3, 4, ...",)),
    ],
)
def test_invalid_tables_are_rejected(text: str, messages: tuple[str, ...], tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError) as error:
        read_label_table(path)
    for message in (str(path), *messages):
        assert message in str(error.value)
    assert str(error.value).count(". ") <= 2


@pytest.mark.parametrize(
    ("preset", "columns", "messages"),
    [
        ("mimic", {}, ("--preset mimic", "nih, rsna, chexpert, vindr")),
        (None, {"patient": "Patent"}, ("--column patient=Patent", "is it Patient?", "file, label, Patient")),
        ("nih", {"label": "Patient"}, ("--column label=Patient", "--preset nih")),
    ],
)
def test_options_that_do_not_fit_are_rejected(
    preset: str | None, columns: dict[str, str], messages: tuple[str, ...], tmp_path: Path
) -> None:
    path = write(tmp_path, "file,label,Patient\na,N,1\n")
    with pytest.raises(ConfigError) as error:
        read_label_table(path, preset, columns)
    for message in messages:
        assert message in str(error.value)
