import io
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Semaphore

import numpy as np
import pytest
from helpers.damaged_images import encode_image
from helpers.decompression_bombs import COLOUR, DECLARED, DEEP, GREY, PIECES, compressed_dicom, png, rle, tiff
from helpers.dicom_files import dicom
from PIL import Image
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from pneumo.data.decoder_limits import MAX_BYTES, LimitedStream, MemoryBudget, raster_bytes
from pneumo.data.jpeg import require_few_scans
from pneumo.data.radiograph import read_content, read_radiograph
from pneumo.errors import DataError


@pytest.mark.parametrize("kind", DECLARED)
def test_declared_sizes_beyond_the_memory_limit_are_rejected(kind: str) -> None:
    with pytest.raises(DataError, match=r"[0-9,]+ MB of memory.* 537 MB"):
        read_radiograph(DECLARED[kind])


@pytest.mark.parametrize("kind", PIECES)
def test_excessive_parts_are_rejected_before_decoding(kind: str) -> None:
    content, reason = PIECES[kind]
    with pytest.raises(DataError, match=reason):
        read_radiograph(content)


@pytest.mark.parametrize(("width", "height", "bits", "colour"), [(6000, 5000, 16, 0), (10_000, 10_000, 8, 2)])
def test_the_largest_radiographs_are_within_the_memory_limit(width: int, height: int, bits: int, colour: int) -> None:
    image = Image.open(io.BytesIO(png(32, bits, colour)))
    image._size = width, height
    assert raster_bytes(image, 120_000_000, 0, 0) <= MAX_BYTES


def test_threads_share_the_memory_budget() -> None:
    budget, entered, end = MemoryBudget(10), Semaphore(0), Event()

    def read() -> None:
        with budget.reservation():
            budget.reserve(6)
            entered.release()
            end.wait()

    with ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(read) for _ in range(3)]
        acquired = [entered.acquire(timeout=timeout) for timeout in (30, 30, 0.05)]
        end.set()
        assert acquired == [True, True, False]  # one image may exceed the budget
        assert all(future.result(timeout=30) is None for future in reading)
    budget.reserve(99)  # reservations outside the context are not counted


def test_threads_that_extend_reservations_do_not_deadlock() -> None:
    budget, start = MemoryBudget(10), Barrier(8)

    def read(_: int) -> None:
        start.wait()
        for _ in range(20):
            with budget.reservation():
                for needed in (4, 3, 6):  # such as the content of a file, then its pixels
                    with budget.reservation():
                        budget.reserve(needed)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(read, range(8), timeout=30))
    assert len(results) == 8


def test_a_file_beyond_the_size_limit_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES + 1)
    for read in (read_radiograph, read_content):
        with pytest.raises(DataError, match=r"536,870,913 bytes.* 536,870,912"):
            read(path)


def test_a_limited_stream_stops_after_too_many_reads_or_bytes() -> None:
    stream = LimitedStream(io.BytesIO(bytes(10)))
    assert stream.read(1 << 62) == bytes(10)  # a size beyond the end allocates nothing
    with pytest.raises(DataError, match="more chunks"):
        read_repeatedly(stream)
    with pytest.raises(DataError, match="more chunks"):
        read_repeatedly(LimitedStream(io.BytesIO(bytes(1 << 20))), times=10)


def read_repeatedly(stream: LimitedStream, times: int = 200_000) -> None:
    for _ in range(times):
        stream.seek(0)
        stream.read()


def test_previews_are_not_counted_as_scans() -> None:
    plain, preview = encode_image(GREY, "JPEG"), encode_image(GREY, "JPEG", progressive=True)
    with_preview = plain[:2] + b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview + plain[2:]
    assert require_few_scans(plain) == require_few_scans(with_preview + preview) == 0
    coloured = encode_image(COLOUR, "JPEG", progressive=True)
    assert require_few_scans(coloured) == 3  # 4:2:0: the chroma has half as many samples


def test_rle_data_beyond_the_image_is_ignored() -> None:
    runs = b"".join(bytes([129, grey]) for grey in range(100))  # 128 bytes each
    image = read_radiograph(compressed_dicom([b"", rle(runs)], RLELossless)).image
    assert image.tobytes() == np.repeat(np.arange(90, dtype=np.uint8), 128).tobytes()
    with pytest.raises(DataError, match=r"67,600,000 bytes.* RLE.* 67,108,864"):
        read_radiograph(dicom(DEEP, syntax=RLELossless, Rows=5200, Columns=6500))


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless])
def test_a_compressed_image_larger_than_the_header_is_rejected(syntax: UID) -> None:
    form = "JPEG" if syntax == JPEGBaseline8Bit else "JPEG2000"
    large = encode_image(np.tile(GREY, (2, 2)), form)
    large = large.replace(b"\xff\xc0", b"\xff\xff\xc0") if form == "JPEG" else large  # hides it from a simple parser
    with pytest.raises(DataError, match=r"size .*differs"):
        read_radiograph(compressed_dicom([b"", large], syntax))


@pytest.mark.parametrize("padding", [0, 70_000])
def test_deflated_files_are_rejected_wherever_the_syntax_is_stored(padding: int) -> None:
    syntax = DeflatedExplicitVRLittleEndian.encode()
    meta = b"\x02\0\x02\x01OB\0\0" + padding.to_bytes(4, "little") + bytes(padding)
    meta += b"\x02\0\x10\0UI" + len(syntax).to_bytes(2, "little") + syntax
    with pytest.raises(DataError, match="deflated transfer syntax"):
        read_radiograph(bytes(128) + b"DICM" + meta + bytes(500))


def test_a_tiff_with_a_self_referencing_directory_has_one_frame() -> None:
    content = bytearray(tiff({}, GREY.tobytes()))
    content[-4:] = content[4:8]
    np.testing.assert_array_equal(np.asarray(read_radiograph(bytes(content)).image), GREY)


@pytest.mark.parametrize("form", ["AVIF", "DDS", "DIB", "EPS", "ICO", "PCX", "SGI", "TGA", "XBM", "FITS"])
def test_other_formats_are_never_decoded(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    for name in ("gs", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {started}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    if form == "FITS":
        content = "".join(line.ljust(80) for line in ("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0", "END")).encode()
    else:
        content = encode_image(
            Image.fromarray(GREY).convert("1" if form == "XBM" else "RGB" if form == "EPS" else "L"), form
        )
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"in an? (un)?supported format|is a vector drawing|is text"):
        read_radiograph(path)
    assert not started.exists()


SOURCES = [
    *(encode_image(GREY, form) for form in ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000", "PPM", "AVIF")),
    *(encode_image(GREY, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg")),
    *(encode_image(DEEP, form) for form in ("PNG", "TIFF", "JPEG2000")),
    *(dicom(DEEP, syntax=syntax) for syntax in (RLELossless, JPEG2000Lossless)),
    dicom(GREY, syntax=JPEGBaseline8Bit),
    b"P5 120 96 4095\n" + (DEEP >> 4).astype(">u2").tobytes(),
]


@pytest.mark.parametrize("index", range(len(SOURCES)))
def test_damaged_files_of_all_formats_are_read_or_rejected(index: int) -> None:
    source, rng = SOURCES[index], random.Random(index)
    cases = [source[:size] for size in (1, 4, 12, 40, len(source) // 2, len(source) - 2)]
    cases += [source[:size] + rng.randbytes(300) for size in (2, 4, 12, 140)]
    for _ in range(20):
        damaged = bytearray(source)
        for offset in rng.choices(range(rng.choice([200, len(source)])), k=6):
            damaged[offset : offset + 4] = rng.choice([b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4), rng.randbytes(1)])
        cases.append(bytes(damaged))
    assert all(attempt(content) for content in cases)


def attempt(content: bytes) -> bool:
    try:
        return read_radiograph(content).image.mode == "L"
    except DataError as error:
        return str(error).endswith(".")
