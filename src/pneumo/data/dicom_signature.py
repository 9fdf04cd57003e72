"""Signature of DICOM files, detected without pydicom, which takes a second to import."""

import re

SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
# Some archives omit the preamble. The file then starts with the length of its header, or with one of the first
# elements: (0008,0000), 0001, 0005, 0008, 0016 or 0018. In big endian, the VR follows the element.
_START = re.compile(
    rb".{128}DICM|\x02\0\0\0|\x08\0[\0\x01\x05\x08\x16\x18]\0|\0\x08\0[\0\x01\x05\x08\x16\x18][A-Z]{2}", re.DOTALL
)
HEAD_BYTES = 132  # that `is_dicom` needs


def is_dicom(head: bytes) -> bool:
    """Return whether the first 132 or more bytes of a file are those of a DICOM file."""
    return _START.match(head) is not None
