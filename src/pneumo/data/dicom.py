"""Reader of DICOM images: greyscale pixels as a viewer displays them, without patient data.

Only the elements needed for the pixels are read (`ELEMENTS`), and no message contains their values.
"""

from contextlib import suppress
from typing import BinaryIO, cast

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pneumo.data.decoder_limits import LimitedStream, dicom_bytes, require_memory
from pneumo.data.dicom_greys import build_grey_table, is_inverted
from pneumo.data.dicom_header import ELEMENTS, complete_header, describe_mismatches, read_text, require_short_values
from pneumo.data.dicom_pixels import PIXELS, build_palette_table, decode_pixels
from pneumo.data.grey import count_codes, look_up, looks_negative
from pneumo.errors import DataError


def read_dicom(stream: LimitedStream) -> tuple[Image.Image, list[str]]:
    """Read the single image of a DICOM file as 8-bit greyscale, with notes on reasons to doubt a prediction.

    The modality LUT or rescaling is applied first, then the first VOI LUT or window with a visible result. Without
    one, 8-bit values are used as they are; others are stretched from their minimum to their maximum, without padding
    and outliers. MONOCHROME1 and the presentation LUT shape INVERSE are inverted. Padding becomes black, and colour
    becomes luminance. (PS3.3 C.7.6.3, C.11.1, C.11.2, C.11.6; PS3.4 N.2.)

    Raises:
        DataError: The file has no image or several, an unsupported size or encoding, or more or larger header elements
            than an image needs.
        Exception: Any that pydicom raises for damaged files; the text may contain values of elements.
    """
    file = cast(BinaryIO, stream)
    require_not_deflated(file)
    stream.seek(0)
    header = dcmread(file, stop_before_pixels=True, force=True, specific_tags=ELEMENTS)
    require_short_values(header)
    notes = describe_mismatches(header)
    notes += complete_header(header, has_pixels=bool(stream.read(1)))
    require_memory(dicom_bytes(header, stream.size))
    stream.seek(0)
    dataset = dcmread(file, force=True, specific_tags=[*ELEMENTS, *PIXELS])
    dataset.update(header)
    samples, photometric, packed, pixel_notes = decode_pixels(dataset)
    notes += pixel_notes
    if photometric == "RGB":
        return Image.fromarray(samples), notes
    # Grey levels are computed for each possible value, at most 65,536, and not for each pixel.
    codes = samples.astype(samples.dtype.newbyteorder("="), copy=False).view(f"u{samples.dtype.itemsize}")
    stored = np.arange(1 << 8 * codes.itemsize, dtype=codes.dtype).view(f"{samples.dtype.kind}{codes.itemsize}")
    if photometric == "PALETTE COLOR":
        return Image.fromarray(look_up(build_palette_table(stored, dataset), codes)), notes
    counts = count_codes(codes, len(stored))
    table, grey_notes = build_grey_table(stored, counts, dataset, packed=packed)
    image = Image.fromarray(look_up(table, codes))
    if is_inverted(dataset) and looks_negative(image):
        notes.append("looks like a negative after the inversion that its header requires")
    return image, list(dict.fromkeys(notes + grey_notes))


def require_not_deflated(stream: BinaryIO) -> None:
    """Raise a DataError for a deflated file, whose size is unknown until it is decompressed.

    pydicom decompresses such a file when it reads beyond the meta information. Like pydicom, this parses the meta
    information with explicit value representations, and else with implicit ones.
    """
    for implicit in (False, True):
        syntax = ""
        with suppress(Exception):  # pydicom raises the same error later, before it decompresses anything
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
                "has the deflated transfer syntax, which is not supported: save it uncompressed, such as with "
                "`dcmconv +te` of DCMTK."
            )
