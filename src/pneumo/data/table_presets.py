"""Presets for the label tables of published data sets."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

NORMAL, PNEUMONIA = "NORMAL", "PNEUMONIA"
_AGE = re.compile(r"0*(\d+)\s*([YMWD]?)", re.IGNORECASE)  # 58, 058Y or 011M
_SEXES = {"male": "M", "female": "F"}
_PATIENT_FOLDER = re.compile(r"(?:^|[/\\])(patient\d+)[/\\]")
Row = Mapping[str, str]  # cells by column name, as written by `fold_name`


@dataclass(frozen=True)
class TablePreset:
    """Layout of a published label table, and what pneumo makes of it.

    Labels are NORMAL and PNEUMONIA. An image with another finding, or without a certain label, is left out.
    """

    table: str  # name of the table and its data set, for messages
    file: str  # column of the file names or image IDs
    classify: Callable[[Row], tuple[str, str]]  # label, or an empty label and the reason
    needed: tuple[tuple[str, ...], ...]  # columns that must be present: one of each tuple
    fields: Mapping[str, Callable[[Row], str]] = field(default_factory=dict)  # patient, age, sex, view
    suffixes: tuple[str, ...] = ()  # of the files, if the table has image IDs without suffix
    caution: tuple[str, str] | None = None  # a column, as written by `fold_name`, and what its absence means
    several_rows: bool = False  # whether several rows per image are allowed; the majority of them decides


def fold_name(name: str) -> str:
    """Return a column name for comparisons: without upper case and underscores."""
    return name.casefold().replace("_", " ").strip()


def _first(*names: str) -> Callable[[Row], str]:
    """Return a function that reads the first of the columns that is present."""
    folded = [fold_name(name) for name in names]
    return lambda row: next((row[name] for name in folded if name in row), "")


def _years(*names: str) -> Callable[[Row], str]:
    """Return a function that reads an age in years; DICOM's ages in months, weeks and days become full years."""
    read = _first(*names)

    def years(row: Row) -> str:
        match = _AGE.fullmatch(read(row).removesuffix(".0"))
        if match is None:
            return read(row)
        per_year = {"M": 12, "W": 52, "D": 365}.get(match[2].upper(), 1)
        return str(int(match[1]) // per_year)

    return years


def _sex(*names: str) -> Callable[[Row], str]:
    read = _first(*names)
    return lambda row: _SEXES.get(read(row).casefold(), read(row))


def _is(row: Row, name: str, value: float) -> bool:
    """Return whether a cell contains a number, such as 1 or 1.0."""
    try:
        return float(row.get(fold_name(name), "")) == value
    except ValueError:
        return False


def _classify_nih(row: Row) -> tuple[str, str]:
    findings = {finding.strip().casefold() for finding in row["finding labels"].split("|")}
    if "pneumonia" in findings:
        return PNEUMONIA, ""
    return (NORMAL, "") if findings == {"no finding"} else ("", "other findings")


def _classify_rsna(row: Row) -> tuple[str, str]:
    if "class" in row:
        label = {"normal": NORMAL, "lung opacity": PNEUMONIA}.get(row["class"].casefold(), "")
        return label, "" if label else "not normal, without lung opacity"
    label = PNEUMONIA if _is(row, "Target", 1) else NORMAL if _is(row, "Target", 0) else ""
    return label, "" if label else "no label"


def _classify_chexpert(row: Row) -> tuple[str, str]:
    if row.get("frontal/lateral", "").casefold() == "lateral":
        return "", "lateral view"
    normal = _is(row, "No Finding", 1)
    if _is(row, "Pneumonia", 1):
        return ("", "contradictory labels") if normal else (PNEUMONIA, "")
    if _is(row, "Pneumonia", -1):
        return "", "uncertain label"
    return (NORMAL, "") if normal else ("", "other findings")


def _classify_vindr(row: Row) -> tuple[str, str]:
    if any(_is(row, name, 1) for name in ("Pneumonia", "Brocho-pneumonia", "Pleuro-pneumonia")):
        return PNEUMONIA, ""
    return (NORMAL, "") if _is(row, "No finding", 1) else ("", "other findings")


def _chexpert_view(row: Row) -> str:
    return row.get("ap/pa", "") or row.get("frontal/lateral", "").upper()


def _chexpert_patient(row: Row) -> str:
    match = _PATIENT_FOLDER.search(row["path"])
    return match[1] if match else ""


PRESETS: Mapping[str, TablePreset] = {
    # Labels mined from reports. Pneumonia: listed, alone or with other findings. Normal: `No Finding` alone.
    "nih": TablePreset(
        table="Data_Entry_2017.csv of NIH ChestX-ray14",
        file="Image Index",
        classify=_classify_nih,
        needed=(("Finding Labels",),),
        fields={
            "patient": _first("Patient ID"),
            "age": _years("Patient Age"),
            "sex": _sex("Patient Gender", "Patient Sex"),
            "view": _first("View Position"),
        },
    ),
    # With the column `class`: Lung Opacity is pneumonia, Normal is normal, the third class is left out. With `Target`
    # only, 0 becomes NORMAL, although more than half of these images are abnormal. patientId numbers images: the
    # table does not relate images of the same patient. Each box of an image has its own row.
    "rsna": TablePreset(
        table="stage_2_detailed_class_info.csv of the RSNA Pneumonia Detection Challenge",
        file="patientId",
        classify=_classify_rsna,
        needed=(("class", "Target"),),
        fields={"patient": _first("patientId")},
        suffixes=(".dcm", ".png", ".jpg", ".jpeg"),
        caution=(
            "class",
            "without the column class, other findings count as NORMAL; stage_2_detailed_class_info.csv has it",
        ),
        several_rows=True,
    ),
    # Labels mined from reports. Pneumonia: 1. Normal: `No Finding` is 1. Uncertain ones (-1), contradictory ones
    # (both 1) and lateral views are left out. The patient is in the path.
    "chexpert": TablePreset(
        table="train.csv of CheXpert",
        file="Path",
        classify=_classify_chexpert,
        needed=(("Pneumonia",), ("No Finding",)),
        fields={"patient": _chexpert_patient, "age": _years("Age"), "sex": _sex("Sex"), "view": _chexpert_view},
    ),
    # Labels of radiologists, one row per reader. Pneumonia: Pneumonia, Brocho-pneumonia (as the table spells it) or
    # Pleuro-pneumonia. Normal: `No finding`. More than half of the readers must agree. The table has no patients.
    "vindr": TablePreset(
        table="image_labels_train.csv of VinDr-PCXR or VinDr-CXR",
        file="image_id",
        classify=_classify_vindr,
        needed=(("Pneumonia",), ("No finding",)),
        suffixes=(".dicom", ".dcm", ".png", ".jpg", ".jpeg"),
        several_rows=True,
    ),
}
