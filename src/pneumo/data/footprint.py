"""Memory that decoding takes, estimated from what a file's header says, before a pixel is decoded."""

from PIL import Image
from pydicom import Dataset

from pneumo.data.scans import Scans
from pneumo.errors import DataError

MOST_BYTES = 512 << 20  # for one image, its file's content included
_NARROW = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_WIDE = 4  # bytes of a pixel of any other mode
_BY_COLOUR = ("P", "PA", "RGBA", "CMYK", "LAB", "HSV")  # become RGB before they become grey
_BLOCKS = 16 << 20  # what calculations block by block take
_SAMPLES = {"LA": 2, "RGB": 3, "YCbCr": 3, "RGBA": 4, "CMYK": 4}


def require_memory(needed: int) -> None:
    """Raise a DataError for an image that would take more than `MOST_BYTES`."""
    if needed > MOST_BYTES:
        raise DataError(
            f"takes some {needed / 1e6:,.0f} MB of memory to decode, and {MOST_BYTES / 1e6:,.0f} MB are the most that "
            "is used for an image: save it smaller, in grey."
        )


def picture_bytes(image: Image.Image, content: int, tile: int, scans: Scans) -> int:
    """Estimate the peak that decoding a picture and making it grey takes.

    Args:
        image: That was opened and not loaded.
        content: Bytes of its file.
        tile: Bytes of a decoded strip or tile of a TIFF, which the decoder holds next to the image.
        scans: Of a JPEG.
    """
    stored = _NARROW.get(image.mode, _WIDE)
    needed: float = stored + 1 + (_WIDE if image.mode in _BY_COLOUR else 0)
    needed += scans.buffered
    if image.format == "WEBP":
        needed += 3 * _WIDE  # two canvases and a copy
    elif image.format == "JPEG2000":
        samples = _SAMPLES.get(image.mode, 1)
        needed += samples * (4 + (stored if samples == 1 else 1))
    whole = 0 if image.format in ("PNG", "BMP") else content
    return int(needed * image.width * image.height) + whole + tile + _BLOCKS


def dicom_bytes(header: Dataset, content: int) -> int:
    """Estimate the peak that decoding a DICOM image and making it grey takes.

    Args:
        header: That `complete_header` has completed.
        content: Bytes of its file.
    """
    pixels = header.Rows * header.Columns
    samples = header.SamplesPerPixel * header.BitsAllocated // 8
    return int(content + pixels * (3 * samples + 2) + _BLOCKS)  # those of pixels in RLE; uncompressed ones take less
