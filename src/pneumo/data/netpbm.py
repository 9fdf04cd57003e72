"""Binary PGM and PPM whose largest value is neither 255 nor 65535, which Pillow decodes pixel by pixel in Python."""

import numpy as np
from PIL import Image

from pneumo.data.images import look_up
from pneumo.data.meter import Meter
from pneumo.errors import DataError

_MOST_COMMENTS = 1000


def read_scaled(image: Image.Image, stream: Meter) -> Image.Image:
    """Decode an image, not loaded yet, whose values have to be scaled as Pillow does; return any other as it is.

    Raises:
        DataError: There are fewer pixels than the header says.
    """
    if image.format != "PPM" or image.tile[0][0] != "ppm":  # type: ignore[attr-defined] # an ImageFile
        return image
    _, _, offset, (*_, largest) = image.tile[0]  # type: ignore[attr-defined] # an ImageFile
    deep, bands = image.mode == "I", len(image.getbands())
    stored, white = (">u2" if largest > 255 else "u1"), 65535 if deep else 255
    stream.seek(offset)
    size = image.width * image.height * bands
    codes = np.frombuffer(stream.read(size * np.dtype(stored).itemsize), stored)
    if codes.size != size:
        raise DataError("is cut off: it has fewer pixels than its header says. Replace it by an intact copy.")
    table = np.rint(np.arange(65536) / largest * white).clip(max=white).astype(np.uint16 if deep else np.uint8)
    shape = (image.height, image.width, bands)
    return Image.fromarray(look_up(table, codes).reshape(shape[: 3 if bands > 1 else 2]))


def require_few_comments(content: bytes) -> None:
    """Raise a DataError for an image in decimal digits with very many comments: Pillow copies a block for each."""
    if content.count(b"#") > _MOST_COMMENTS:
        raise DataError(f"is a PGM or PPM with more than {_MOST_COMMENTS:,} comments: save it as PNG.")
