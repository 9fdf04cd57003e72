"""The reader of DICOM images: grey pixels as a viewer shows them, without patient data.

Only the elements that pixels require are read (`ELEMENTS`), and no message contains their values.
"""

import re
from contextlib import suppress
from typing import BinaryIO, cast

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pneumo.data.decoder_limits import Meter, dicom_bytes, require_memory
from pneumo.data.dicom_greys import build_grey_table
from pneumo.data.dicom_header import ELEMENTS, complete_header, describe_doubts, read_text, require_short_values
from pneumo.data.dicom_pixels import PIXELS, build_palette_table, decode_pixels
from pneumo.data.grey import count_codes, look_up
from pneumo.errors import DataError

# Without the preamble, which some archives leave out, a file starts with the length of its header, or with one of the
# first elements that there are: (0008,0000), 0001, 0005, 0008, 0016 or 0018. Big endian has its VR behind the element.
_START = re.compile(
    rb".{128}DICM|\x02\0\0\0|\x08\0[\0\x01\x05\x08\x16\x18]\0|\0\x08\0[\0\x01\x05\x08\x16\x18][A-Z]{2}", re.DOTALL
)


def is_dicom(head: bytes) -> bool:
    """Return whether a file that starts with these bytes (132 or more) is a DICOM file."""
    return _START.match(head) is not None


def read_dicom(stream: Meter) -> tuple[Image.Image, list[str]]:
    """Read the one image of a DICOM file, grey, 8 bits a pixel, with notes on what makes its prediction doubtful.

    Values go through the modality's table or rescaling and the first VOI table or window that shows something. Where
    there is none, 8-bit values are greys already, and others are stretched from the least to the greatest that is
    neither padding nor an outlier. MONOCHROME1 and the presentation shape INVERSE are inverted. Padding is black.
    Colour becomes luminance. (PS3.3 C.7.6.3, C.11.1, C.11.2, C.11.6; PS3.4 N.2.)

    Raises:
        DataError: It holds no image, several, or one that is too large or small, or that cannot be decoded here, or its
            header has more elements, or larger ones, than an image's.
        Exception: Any that pydicom raises for damaged files; the text may hold elements' values.
    """
    file = cast(BinaryIO, stream)
    _refuse_deflated(file)
    stream.seek(0)
    header = dcmread(file, stop_before_pixels=True, force=True, specific_tags=ELEMENTS)
    require_short_values(header)
    notes = describe_doubts(header)
    notes += complete_header(header, has_pixels=bool(stream.read(1)))
    require_memory(dicom_bytes(header, stream.size))
    stream.seek(0)
    dataset = dcmread(file, force=True, specific_tags=[*ELEMENTS, *PIXELS])
    dataset.update(header)
    samples, photometric, packed, found = decode_pixels(dataset)
    notes += found
    if photometric == "RGB":
        return Image.fromarray(samples), notes
    # The grey of a value is computed once for each that there can be, 65,536 at most, and not for each pixel.
    codes = samples.astype(samples.dtype.newbyteorder("="), copy=False).view(f"u{samples.dtype.itemsize}")
    stored = np.arange(1 << 8 * codes.itemsize, dtype=codes.dtype).view(f"{samples.dtype.kind}{codes.itemsize}")
    if photometric == "PALETTE COLOR":
        return Image.fromarray(look_up(build_palette_table(stored, dataset), codes)), notes
    counts = count_codes(codes, len(stored))
    table, found = build_grey_table(stored, counts, dataset, packed=packed)
    return Image.fromarray(look_up(table, codes)), list(dict.fromkeys(notes + found))


def _refuse_deflated(stream: BinaryIO) -> None:
    """Raise a DataError for a file that is compressed as a whole, whose size is unknown until it is unpacked.

    pydicom unpacks it wherever it reads more than the file's meta information, which is parsed here as pydicom does:
    with explicit value representations, or else with implicit ones.
    """
    for implicit in (False, True):
        syntax = ""
        with suppress(Exception):  # where pydicom raises here, it raises again, before it unpacks anything
            stream.seek(0)
            read_preamble(stream, force=True)
            meta = read_dataset(
                stream,
                implicit,
                True,
                stop_when=lambda tag, *_: tag.group != 2,
                specific_tags=[Tag("TransferSyntaxUID")],
            )
            syntax = read_text(meta, "TransferSyntaxUID")
        if syntax == DeflatedExplicitVRLittleEndian:
            raise DataError(
                "is deflated as a whole, which is not read: save it uncompressed (dcmconv +te of DCMTK does)."
            )
