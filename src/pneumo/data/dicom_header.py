"""Header of a DICOM image: the elements that are read, their rules and their defaults."""

import math
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from pneumo.data.grey import require_size
from pneumo.errors import DataError

_PALETTE = [
    f"{kind}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
_INTEGERS = (
    *("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
OVERLAYS = [0x60000102 + 0x20000 * plane for plane in range(16)]  # OverlayBitPosition: uses unused bits of pixels
_MAY_BE_ZERO = ("PlanarConfiguration", "HighBit", "PixelRepresentation")  # in all others, zero is a missing value
_KEYWORDS = (
    *("Modality", "BodyPartExamined", "ViewPosition", "PhotometricInterpretation", *_INTEGERS),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth", "PresentationLUTShape"),
    *_PALETTE,
)
_TABLES = {Tag(name) for name in ("ModalityLUTSequence", "VOILUTSequence", *_PALETTE)}
_MOST_TABLE = 1 << 20  # bytes; 65,536 entries of 16 bits are 131,072
_MOST_VALUE = 4096
ELEMENTS = [*map(Tag, _KEYWORDS), *map(Tag, OVERLAYS)]
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
# Grey pixels in three equal samples are read too.
_SAMPLES = {**dict.fromkeys(MONOCHROME, (1, 3)), "PALETTE COLOR": (1,), **dict.fromkeys(_COLOUR, (3,))}
_RADIOGRAPHY = ("", "CR", "DX", "DR", "RG", "RF", "SC", "OT")  # SC and OT, captured and other, leave it open
_LATERAL = ("LL", "RL", "LAT", "LATERAL")
# Parts of the words for chest, thorax, lung, rib and sternum, without accents. HEART and CHEST are in DICOM's CID 4.
_CHEST = re.compile(
    "CHEST|CHST|CXR|THX|THORA|TORA[CKX]|LUNG|PULM|RIB|STERN|HEART|MEDIAST"
    "|PECHO|COSTILLA|PEITO|PETTO|POLMON|POUMON|POITRINE|BRUST|RIPPE|HERZ|BORST|BROST|BRYST|LONG(EN)?$"
    "|KLATK|PLUC|HRUDN|PLICE|MELLKAS|\\bTUDO|PLAMAN|KEUHKO|RINTAK|GOGUS|AKCIGER|DADA|PARU|NGUC|PHOI"
    "|ГРУД|ЛЕГК|ОГК|ΘΩΡΑ|胸|肺|흉|폐|가슴"
)
_OPEN = ("", "UNKNOWN", "UNSPECIFIED", "UNDEFINED", "NONE", "N/A", "NA", "ANY")
_UNACCENTED = str.maketrans({"Ł": "L", "Ø": "O", "Đ": "D"})  # letters that Unicode does not decompose


def require_short_values(header: Dataset) -> None:
    """Raise a DataError where an element that is read is larger than any image's: parsing takes 100 times its size."""
    for tag in header.keys():  # noqa: SIM118 (to iterate over a Dataset itself would parse its elements)
        if _value_size(header, tag) > (most := _MOST_TABLE if tag in _TABLES else _MOST_VALUE):
            raise DataError(f"has a {keyword_for_tag(tag)} of more than {most:,} bytes: export it again.")


def _value_size(header: Dataset, tag: BaseTag) -> int:
    """Return an element's size without parsing it; sequences of undefined length are parsed already."""
    value = header.get_item(tag).value
    if isinstance(value, Sequence) and not isinstance(value, (bytes, str)):
        items = ((item, item.keys()) for item in value if isinstance(item, Dataset))
        return sum(_value_size(item, tag) for item, tags in items for tag in tags)
    return len(value) if isinstance(value, (bytes, str)) else 0


def complete_header(header: Dataset, has_pixels: bool) -> list[str]:
    """Validate the elements that describe the pixels, and set missing ones that have only one sensible value.

    Elements become plain numbers and upper-case text; what was assumed is returned as notes.

    Raises:
        DataError: The header has no image, several, one that is too large or small, or one that cannot be read. The
            text names elements by keyword and holds no value of text.
    """
    numbers = ((name, _integer(header, name)) for name in _INTEGERS)
    found = {name: number for name, number in numbers if number or (number == 0 and name in _MAY_BE_ZERO)}
    photometric = read_text(header, "PhotometricInterpretation").upper()
    if not {"Rows", "Columns"} <= found.keys() and not (has_pixels and (found or photometric)):
        raise DataError("is a DICOM file without a picture, such as a report or a directory.")
    if found.pop("NumberOfFrames", 1) > 1:
        raise DataError("has several frames, and a radiograph is one: save the one that you mean as its own file.")
    assumed = _assume(found, photometric)
    complete = {**assumed, **found}
    missing = [name for name in ("Rows", "Columns", "BitsAllocated") if name not in complete]
    missing += [] if photometric else ["PhotometricInterpretation"]
    if missing:
        raise DataError(f"lacks {' and '.join(missing)}, without which its pixels cannot be read: export it again.")
    require_size(complete["Columns"], complete["Rows"])
    _require_readable(complete, photometric)
    notes = [f"its header lacks {name}, which was taken to be {number}" for name, number in assumed.items()]
    if not complete["BitsStored"] <= complete["HighBit"] + 1 <= complete["BitsAllocated"]:
        complete["HighBit"] = complete["BitsStored"] - 1
        notes.append("its HighBit does not fit its BitsStored and was ignored")
    header.PhotometricInterpretation, header.NumberOfFrames = photometric, 1
    for name, number in complete.items():
        setattr(header, name, number)
    return notes


def _assume(found: dict[str, int], photometric: str) -> dict[str, int]:
    """Return values for the missing elements that have only one sensible value."""
    samples = found.get("SamplesPerPixel", 3 if photometric in _COLOUR else 1)
    stored = found.get("BitsStored", found["HighBit"] + 1 if "HighBit" in found else found.get("BitsAllocated"))
    values = {"SamplesPerPixel": samples, "PixelRepresentation": 0}
    if samples == 3:
        values["PlanarConfiguration"] = 0
    if stored is not None:
        values |= {"BitsAllocated": 8 if stored <= 8 else 16, "BitsStored": stored, "HighBit": stored - 1}
    return {name: number for name, number in values.items() if name not in found}


def _require_readable(numbers: dict[str, int], photometric: str) -> None:
    if numbers["BitsAllocated"] not in (8, 16):
        raise DataError("has neither 8 nor 16 bits for a pixel's value, and no other film is read: save it with 16.")
    if not 1 <= numbers["BitsStored"] <= numbers["BitsAllocated"]:
        raise DataError("has a BitsStored that does not fit its BitsAllocated: export it again.")
    if photometric not in _SAMPLES:
        raise DataError("has a PhotometricInterpretation that is not read: export it as MONOCHROME2 or RGB.")
    if numbers["SamplesPerPixel"] not in _SAMPLES[photometric]:
        raise DataError("has a SamplesPerPixel that contradicts its PhotometricInterpretation: export it again.")
    flags = ["PixelRepresentation", *(["PlanarConfiguration"] if numbers["SamplesPerPixel"] == 3 else [])]
    if wrong := [name for name in flags if numbers[name] not in (0, 1)]:
        raise DataError(f"has a {' and a '.join(wrong)} that is neither 0 nor 1: export it again.")


def _integer(header: Dataset, name: str) -> int | None:
    """Read a whole number; None where the element is missing or empty."""
    if name not in header:
        return None
    try:
        value = header[name].value
        return None if value is None or value == "" else int(value)
    except Exception:  # pydicom raises many kinds; multiple values are no number either
        raise DataError(f"has a {name} that is not one whole number: export it again.") from None


def read_text(header: Dataset, name: str) -> str:
    """Read an element's first value; empty where the element is missing or cannot be decoded."""
    value = None
    with suppress(Exception):
        value = header.get(name)
    values = [value] if value is None or isinstance(value, (str, bytes)) else [*value]
    return str(values[0]).strip(" \0") if values and values[0] else ""


def read_numbers(header: Dataset, name: str | int) -> list[float]:
    """Read an element's numbers: NaN for each value that is none, nothing where the element is missing or empty."""
    if name not in header:
        return []
    raw = header.get_item(name).value
    try:
        value = header[name].value
        if value is None or value == "":
            return []
        return [float(number) for number in (value if isinstance(value, (Sequence, MultiValue)) else [value])]
    except Exception:  # pydicom raises many kinds, and for all values where one of them is invalid
        return [_number(part) for part in raw.split(b"\\")] if isinstance(raw, bytes) else [math.nan]


def _number(text: bytes) -> float:
    try:
        return float(text.strip(b" \0"))
    except ValueError:
        return math.nan


def describe_doubts(header: Dataset) -> list[str]:
    """Return what the header says against a frontal chest radiograph."""
    position, modality, part = (
        _fold(read_text(header, name)) for name in ("ViewPosition", "Modality", "BodyPartExamined")
    )
    doubts = {
        "its header says that it is a lateral view": position in _LATERAL,
        "its header says that it is no plain radiograph": modality not in _RADIOGRAPHY,
        "its header says that it shows no chest": part not in _OPEN and not _CHEST.search(part),
    }
    return [text for text, found in doubts.items() if found]


def _fold(text: str) -> str:
    """Convert text to upper case without accents; UTF-8 that was decoded as Latin-1 is restored first."""
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    letters = unicodedata.normalize("NFKD", text.upper().translate(_UNACCENTED))
    return unicodedata.normalize("NFC", "".join(letter for letter in letters if not unicodedata.combining(letter)))
