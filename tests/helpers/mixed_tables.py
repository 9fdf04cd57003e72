"""Small label tables with PNG, 16-bit PNG and DICOM files of several sites."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.dicom_files import dicom
from pneumo.data.anatomy import Finding
from pneumo.data.phantoms import draw_radiograph

CLASSES = ("NORMAL", "TB", "COVID")
_FINDINGS: tuple[Finding, ...] = ("none", "bacterial", "viral")
SECRET = "SECRET-ID-{:03d}"  # PatientID in the DICOM headers


def write_mixed_table(folder: Path, patients: int = 60, sites: tuple[str, ...] = ("A", "B")) -> Path:
    """Write a table and its images, two of each patient; return the table.

    The columns are file, label, patient, site, age. A third of the images are DICOM files. A tenth of the patients have
    no name in the table; their DICOM files have the patient in the header.
    """
    (folder / "images").mkdir(parents=True)
    rows = []
    for patient in range(patients):
        label = patient % len(CLASSES)
        for image in range(2):
            body, posture = np.random.default_rng(patient), np.random.default_rng([patient, image])
            pixels = draw_radiograph(body, posture, _FINDINGS[label])
            file = Path("images") / f"{patient}-{image}"
            if patient % 10 == 9 or image:
                file = file.with_suffix(".dcm")
                sixteen_bits = pixels.astype(np.uint16) * 256
                content = dicom(sixteen_bits, PatientID=SECRET.format(patient), PatientName=f"SECRET^{patient}")
                (folder / file).write_bytes(content)
            else:
                file = file.with_suffix(".png")
                Image.fromarray(pixels.astype(np.uint16) * 256 if patient % 2 else pixels).save(folder / file)
            known = "" if patient % 10 == 9 else f"P{patient}"
            rows.append((file.as_posix(), CLASSES[label], known, sites[patient // 3 % len(sites)], 20 + patient))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file_handle:
        csv.writer(file_handle).writerows([("file", "label", "patient", "site", "age"), *rows])
    return folder / "labels.csv"
