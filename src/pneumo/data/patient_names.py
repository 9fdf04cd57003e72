"""Patients of radiographs: from a table or a file name, else from the DICOM header, else one patient per image."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from pneumo.data.dicom_patients import header_patients
from pneumo.data.index import Radiograph, file_path

_log = logging.getLogger(__name__)


def complete_patients(
    root: Path, radiographs: Sequence[Radiograph], known: Sequence[str], fallback: Sequence[str], source: str
) -> list[Radiograph]:
    """Return the radiographs with their patients, and log how many come from which source.

    A header's patient that also has an image with a known patient gets the known name, so that all of its images have
    the same name.

    Args:
        root: Folder of the files.
        radiographs: N radiographs.
        known: Known patient of each radiograph, (N,); empty if unknown.
        fallback: Name to use if the header has no patient either, (N,).
        source: Source of the known patients, for the log.
    """
    if all(known):
        return [replace(image, patient=patient) for image, patient in zip(radiographs, known, strict=True)]
    raster = Image.registered_extensions()
    # Headers of images with a known patient are only needed to recognise the patient; a suffix such as .png saves time.
    read = [
        i
        for i, (image, patient) in enumerate(zip(radiographs, known, strict=True))
        if not patient or os.path.splitext(image.path)[1].lower() not in raster
    ]
    pseudonyms = header_patients([file_path(root, radiographs[i].path) for i in read])
    header = {i: pseudonym for i, pseudonym in zip(read, pseudonyms, strict=True) if pseudonym}
    names = {pseudonym: known[i] for i, pseudonym in header.items() if known[i]}
    patients = [
        patient or names.get(header.get(i, ""), header.get(i, "")) or other
        for i, (patient, other) in enumerate(zip(known, fallback, strict=True))
    ]
    count = sum(map(bool, known))
    from_header = sum(not known[i] for i in header)
    _log.info(
        "Patients: %d images from %s, %d from DICOM headers, %d unknown (each file is one patient)",
        count,
        source,
        from_header,
        len(known) - count - from_header,
    )
    return [replace(image, patient=patient) for image, patient in zip(radiographs, patients, strict=True)]
