"""Damaged, misnamed and unusual image files of 19 kinds, reproducible from a seed."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from helpers.dicom_files import dicom

Draw = Callable[[np.random.Generator], tuple[str, bytes]]


class Damaged(NamedTuple):
    """A damaged or unusual file."""

    path: Path
    kind: str
    readable: bool | None  # whether it must be read or rejected; None allows both


def write_damaged(folder: Path, seed: int = 0, count: int = 300) -> list[Damaged]:
    """Write `count` files, about the same number of each kind, and return them."""
    generator = np.random.default_rng(seed)
    files = []
    for number, (kind, readable, draw) in enumerate(islice(cycle(_KINDS), count)):
        suffix, content = draw(generator)
        path = folder / f"{number:03}-{kind.replace(' ', '-')}{suffix}"
        path.write_bytes(content)
        files.append(Damaged(path, kind, readable))
    return files


def smooth_image(generator: np.random.Generator, height: int = 96, width: int = 120) -> np.ndarray:
    """Draw a smooth image with noise, values 0 to 255, shape (height, width)."""
    coarse = Image.fromarray(generator.integers(20, 236, (6, 8), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    grey = (smooth + generator.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)
    grey[0, :2] = 0, 255
    return grey


def encode_image(pixels: np.ndarray | Image.Image, form: str, **options: object) -> bytes:
    """Encode an image in one of Pillow's file formats."""
    stream = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(stream, form, **options)
    return stream.getvalue()


_GENERATOR = np.random.default_rng(0)
SMOOTH_IMAGES = [smooth_image(_GENERATOR, height, width) for height, width in ((90, 120), (64, 64), (200, 40))]


def huge_png(side: int = 30_000) -> bytes:
    """Build a small PNG that declares a height and width of `side` pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def _any(generator: np.random.Generator) -> tuple[str, bytes]:
    suffix, store = _SOURCES[generator.integers(len(_SOURCES))]
    return suffix, store(smooth_image(generator))


def _truncated(generator: np.random.Generator) -> tuple[str, bytes]:
    suffix, content = _any(generator)
    return suffix, content[: generator.integers(1, len(content))]


def _flipped(generator: np.random.Generator) -> tuple[str, bytes]:
    suffix, content = _any(generator)
    damaged = np.frombuffer(content, np.uint8).copy()
    end = generator.choice([400, len(damaged)])  # most failures come from the short headers
    offsets = generator.integers(0, min(end, len(damaged)), generator.integers(1, 20))
    damaged[offsets] ^= np.left_shift(1, generator.integers(0, 8, len(offsets))).astype(np.uint8)
    return suffix, damaged.tobytes()


def _misnamed(generator: np.random.Generator) -> tuple[str, bytes]:
    return str(generator.choice([".jpeg", ".png", ".dcm", ".txt", ""])), _any(generator)[1]


def _animated(generator: np.random.Generator) -> tuple[str, bytes]:
    form = str(generator.choice(["GIF", "TIFF", "PNG", "WEBP"]))
    first, *others = (Image.fromarray(smooth_image(generator)) for _ in range(3))
    return f".{form.lower()}", encode_image(first, form, save_all=True, append_images=others)


def _zip(generator: np.random.Generator) -> tuple[str, bytes]:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("scan.png"), encode_image(smooth_image(generator), "PNG"))
    return ".zip", stream.getvalue()


def _floating(generator: np.random.Generator) -> tuple[str, bytes]:
    values = smooth_image(generator).astype(np.float32)
    values[generator.random(values.shape) < 0.1] = np.nan
    return ".tiff", encode_image(values, "TIFF")


def _sixteen(grey: np.ndarray) -> np.ndarray:
    return grey.astype(np.uint16) * 257


def _huge_dicom(generator: np.random.Generator) -> tuple[str, bytes]:
    return ".dcm", dicom(smooth_image(generator), Rows=30_000, Columns=30_000)


_SOURCES: list[tuple[str, Callable[[np.ndarray], bytes]]] = [
    *((f".{form}", partial(encode_image, form=form.upper())) for form in ("jpeg", "png", "tiff", "bmp", "webp", "gif")),
    (".tif", partial(encode_image, form="TIFF", compression="tiff_lzw")),
    (".dcm", dicom),
    (".dcm", lambda grey: dicom(grey.astype(np.uint16) * 16, bits=12, WindowCenter=2048, WindowWidth=4096)),
    (".dcm", partial(dicom, syntax=RLELossless)),
    (".dcm", partial(dicom, syntax=JPEGBaseline8Bit)),
    (".dcm", partial(dicom, preamble=False)),
]
_KINDS: list[tuple[str, bool | None, Draw]] = [
    *[("truncated", None, _truncated)] * 6,
    *[("bits flipped", None, _flipped)] * 8,
    *[("wrong suffix", True, _misnamed)] * 2,
    ("empty", False, lambda _: (".jpeg", b"")),
    ("one pixel", False, lambda g: (".png", encode_image(smooth_image(g)[:1, :1], "PNG"))),
    ("huge png", False, lambda _: (".png", huge_png())),
    ("huge dicom", False, _huge_dicom),
    ("text", False, lambda g: (".jpg", b"patient,finding\n" * g.integers(1, 99))),
    ("zip", False, _zip),
    ("noise", False, lambda g: (".png", b"\xfe" + g.bytes(2000))),
    ("animated", False, _animated),
    ("flat", False, lambda g: (".png", encode_image(np.full((64, 64), g.integers(256), np.uint8), "PNG"))),
    ("floating", False, _floating),
    ("nan dicom", False, lambda g: (".dcm", dicom(smooth_image(g), RescaleSlope="NaN", RescaleIntercept="0"))),
    ("report", False, lambda g: (".dcm", dicom(smooth_image(g), Rows=None, Columns=None, PixelData=None))),
    ("sixteen bits", True, lambda g: (".png", encode_image(_sixteen(smooth_image(g)), "PNG"))),
    (
        "cmyk",
        True,
        lambda g: (".jpeg", encode_image(Image.fromarray(smooth_image(g)).convert("RGB").convert("CMYK"), "JPEG")),
    ),
    ("colour", True, lambda g: (".webp", encode_image(Image.fromarray(smooth_image(g)).convert("RGBA"), "WEBP"))),
    ("negative", True, lambda g: (".dcm", dicom(255 - smooth_image(g), photometric="MONOCHROME1"))),
]
