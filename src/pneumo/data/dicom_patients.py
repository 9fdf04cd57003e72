"""Patients from DICOM headers, as pseudonyms.

Pseudonyms are numbers in order of first appearance. A hash without a secret would not hide the IDs: they are short, so
that all possible ones can be hashed and compared.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

from pydicom import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import Tag

from pneumo.common.hardware import count_cores
from pneumo.data.decoder_limits import LimitedStream
from pneumo.data.dicom import require_not_deflated
from pneumo.data.dicom_signature import is_dicom
from pneumo.data.radiograph import open_safely
from pneumo.errors import DataError

_ELEMENTS = [Tag("PatientID"), Tag("IssuerOfPatientID")]
_PADDING = b" \0"


def header_patients(files: Sequence[Path]) -> list[str]:
    """Read the patients of files from their DICOM headers, as pseudonyms such as `header-0001`.

    Patients are equal if PatientID and IssuerOfPatientID are. Pseudonyms are numbered in the order of `files`, so they
    are comparable only within one call. IDs are neither returned nor logged.

    Args:
        files: Image files of any format.

    Returns:
        One pseudonym per file; empty if the file is unreadable, is not DICOM, or has no PatientID.
    """
    numbers: dict[bytes, int] = {}
    with ThreadPoolExecutor(count_cores(), "header_patients") as pool:
        identities = pool.map(_read_identity, files)
        return [
            f"header-{numbers.setdefault(identity, len(numbers) + 1):04d}" if identity else ""
            for identity in identities
        ]


def _read_identity(file: Path) -> bytes:
    """Return the raw PatientID with its issuer; empty if the file has none."""
    try:
        return open_safely(file, _parse_identity)
    except DataError:
        return b""


def _parse_identity(stream: LimitedStream, head: bytes) -> bytes:
    if not is_dicom(head):
        return b""
    file = cast(BinaryIO, stream)
    require_not_deflated(file)
    stream.seek(0)
    header = read_partial(file, lambda tag, *_: tag > _ELEMENTS[-1], force=True, specific_tags=list(_ELEMENTS))
    patient, issuer = (_raw_value(header, tag) for tag in _ELEMENTS)
    return patient and patient + b"\\" + issuer  # a backslash separates values in DICOM, so IDs do not contain it


def _raw_value(header: Dataset, tag: int) -> bytes:
    value = header.get_item(tag).value if tag in header else b""
    return value.strip(_PADDING) if isinstance(value, bytes) else b""
