import logging
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import dicom
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pneumo.data.dicom_patients import header_patients

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)


def write(path: Path, **elements: object) -> Path:
    path.write_bytes(dicom(PIXELS, **elements))  # type: ignore[arg-type]
    return path


def test_patients_are_numbered_in_order_of_appearance(tmp_path: Path) -> None:
    ids = ["SECRET9", "SECRET1", "SECRET9 ", "SECRET1"]
    files = [write(tmp_path / f"{i}.dcm", PatientID=name) for i, name in enumerate(ids)]
    assert header_patients(files) == ["header-0001", "header-0002", "header-0001", "header-0002"]
    assert header_patients(files[1:]) == ["header-0001", "header-0002", "header-0001"]
    assert header_patients([]) == []


def test_equal_ids_of_different_issuers_are_different_patients(tmp_path: Path) -> None:
    issuers = ["West", "East", "West"]
    files = [write(tmp_path / f"{i}", PatientID="1", IssuerOfPatientID=issuer) for i, issuer in enumerate(issuers)]
    files.append(write(tmp_path / "without", PatientID="1"))
    assert header_patients(files) == ["header-0001", "header-0002", "header-0001", "header-0003"]


def test_the_encoding_of_a_file_does_not_matter(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "explicit", PatientID="ID1"),
        write(tmp_path / "implicit", PatientID="ID1", syntax=ImplicitVRLittleEndian),
        write(tmp_path / "big", PatientID="ID1", syntax=ExplicitVRBigEndian),
        write(tmp_path / "bare", PatientID="ID1", syntax=ImplicitVRLittleEndian, preamble=False),
        write(tmp_path / "latin", PatientID="Jos\xe9".encode("latin-1")),
        write(tmp_path / "utf", PatientID="Jos\xe9".encode(), SpecificCharacterSet="ISO_IR 192"),
    ]
    assert header_patients(files) == [*["header-0001"] * 4, "header-0002", "header-0003"]


def test_files_without_patient_have_no_pseudonym(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    image = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(image)
    (tmp_path / "empty").touch()
    whole = dicom(PIXELS, PatientID="SECRET9")
    (tmp_path / "damaged").write_bytes(whole[: whole.index(b"SECRET9") - 6])
    (tmp_path / "cut").write_bytes(whole[: whole.index(b"SECRET9") + 30])
    files = [
        write(tmp_path / "none"),
        write(tmp_path / "blank", PatientID="  "),
        image,
        tmp_path / "empty",
        tmp_path / "damaged",
        tmp_path / "absent",
        tmp_path,
    ]
    assert header_patients(files) == [""] * len(files)
    assert header_patients([tmp_path / "cut"]) == ["header-0001"]  # the rest of the file is not read
    assert "SECRET" not in caplog.text


def test_deflated_files_are_not_decompressed(tmp_path: Path) -> None:
    assert header_patients([write(tmp_path / "x", PatientID="1", syntax=DeflatedExplicitVRLittleEndian)]) == [""]
