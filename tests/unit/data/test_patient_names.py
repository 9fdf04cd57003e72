import logging
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import dicom

from pneumo.data.index import Radiograph
from pneumo.data.patient_names import complete_patients

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)


def radiograph(path: str) -> Radiograph:
    return Radiograph(path, 0, "none", "", "", 1, 1)


def test_a_header_links_images_with_and_without_a_known_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, patient in (("a.dcm", "X1"), ("b.dcm", "X1"), ("c.dcm", "X2"), ("d.dcm", None), ("e.png", None)):
        (tmp_path / name).write_bytes(dicom(PIXELS, PatientID=patient) if patient else b"no DICOM")
    images = [radiograph(f"{name}") for name in ("a.dcm", "b.dcm", "c.dcm", "d.dcm", "e.png")]
    with caplog.at_level(logging.INFO):
        named = complete_patients(tmp_path, images, ["P7", "", "", "", "P8"], ["1", "2", "3", "4", "5"], "a table")
    assert [image.patient for image in named] == ["P7", "P7", "header-0002", "4", "P8"]
    assert "2 images from a table, 2 from DICOM headers, 1 unknown" in caplog.text
    assert "X1" not in caplog.text


def test_no_file_is_read_if_all_patients_are_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = [radiograph("missing.dcm")]
    with caplog.at_level(logging.INFO):
        assert complete_patients(tmp_path, images, ["P1"], ["1"], "a table")[0].patient == "P1"
    assert not caplog.text
