from pathlib import Path

import numpy as np
from helpers.dicom_files import dicom

from pneumo.audit.findings import audit
from pneumo.data.image_tree import read_tree


def test_patients_of_unnamed_files_are_pseudonyms_of_their_dicom_headers(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 64, 64)).astype(np.uint8)
    for number, (split, name, patient) in enumerate(
        (split, name, patient) for split in ("train", "test") for name, patient in (("A", "X7"), ("B", "X8"), ("A", ""))
    ):
        folder = tmp_path / split / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.dcm").write_bytes(dicom(pixels[number], PatientID=patient))
    findings = audit(read_tree(tmp_path))
    patients = {file.path: file.patient for file in findings.tree.files}
    assert patients["train/A/0.dcm"] == patients["test/A/3.dcm"] != patients["train/B/1.dcm"]
    assert patients["train/A/2.dcm"] is None
    assert len(findings.patients.shared) == 2
    assert "X7" not in str(findings)
