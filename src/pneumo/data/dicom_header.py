"""Header of a DICOM image: the elements that are read, their validation and their defaults."""

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
OVERLAYS = [0x60000102 + 0x20000 * plane for plane in range(16)]  # OverlayBitPosition: overlay in unused pixel bits
_MAY_BE_ZERO = ("PlanarConfiguration", "HighBit", "PixelRepresentation")  # zero in the others means missing
_KEYWORDS = (
    *("Modality", "BodyPartExamined", "ViewPosition", "PhotometricInterpretation", *_INTEGERS),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth", "PresentationLUTShape"),
    *_PALETTE,
)
_TABLES = {Tag(name) for name in ("ModalityLUTSequence", "VOILUTSequence", *_PALETTE)}
_MAX_TABLE_BYTES = 1 << 20  # 65,536 entries of 16 bits are 131,072
_MAX_VALUE_BYTES = 4096
ELEMENTS = [*map(Tag, _KEYWORDS), *map(Tag, OVERLAYS)]
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
# Allowed SamplesPerPixel; greyscale may also be stored in three equal samples.
_SAMPLES = {**dict.fromkeys(MONOCHROME, (1, 3)), "PALETTE COLOR": (1,), **dict.fromkeys(_COLOUR, (3,))}
# SC (secondary capture) and OT (other) may be radiographs.
_RADIOGRAPHY_MODALITIES = ("", "CR", "DX", "DR", "RG", "RF", "SC", "OT")
_LATERAL_VIEWS = ("LL", "RL", "LAT", "LATERAL")
# Parts of words for chest, thorax, lung, rib and sternum, without accents. HEART and CHEST are in CID 4 of DICOM.
_CHEST = re.compile(
    "CHEST|CHST|CXR|THX|THORA|TORA[CKX]|LUNG|PULM|RIB|STERN|HEART|MEDIAST"
    "|PECHO|COSTILLA|PEITO|PETTO|POLMON|POUMON|POITRINE|BRUST|RIPPE|HERZ|BORST|BROST|BRYST|LONG(EN)?$"
    "|KLATK|PLUC|HRUDN|PLICE|MELLKAS|\\bTUDO|PLAMAN|KEUHKO|RINTAK|GOGUS|AKCIGER|DADA|PARU|NGUC|PHOI"
    "|ГРУД|ЛЕГК|ОГК|ΘΩΡΑ|胸|肺|흉|폐|가슴"
)
_UNSPECIFIED_PARTS = ("", "UNKNOWN", "UNSPECIFIED", "UNDEFINED", "NONE", "N/A", "NA", "ANY")
_UNACCENTED = str.maketrans({"Ł": "L", "Ø": "O", "Đ": "D"})  # letters that Unicode does not decompose


def require_short_values(header: Dataset) -> None:
    """Raise a DataError for an element larger than an image needs: parsing needs 100 times its size in memory."""
    for tag in header.keys():  # noqa: SIM118 (iterating over the Dataset itself would parse its elements)
        if _value_size(header, tag) > (limit := _MAX_TABLE_BYTES if tag in _TABLES else _MAX_VALUE_BYTES):
            raise DataError(f"has a {keyword_for_tag(tag)} of more than {limit:,} bytes: export it again.")


def _value_size(header: Dataset, tag: BaseTag) -> int:
    """Return the size of an element without parsing it; sequences of undefined length are already parsed."""
    value = header.get_item(tag).value
    if isinstance(value, Sequence) and not isinstance(value, (bytes, str)):
        items = ((item, item.keys()) for item in value if isinstance(item, Dataset))
        return sum(_value_size(item, tag) for item, tags in items for tag in tags)
    return len(value) if isinstance(value, (bytes, str)) else 0


def complete_header(header: Dataset, has_pixels: bool) -> list[str]:
    """Validate the elements that describe the pixels, and set missing ones that have only one sensible value.

    Elements become plain numbers and upper-case text. The returned notes list the assumed values.

    Raises:
        DataError: The header describes no image or several, or one of unsupported size or encoding. The text names
            elements by keyword and contains no text values.
    """
    numbers = ((name, _integer(header, name)) for name in _INTEGERS)
    present = {name: number for name, number in numbers if number or (number == 0 and name in _MAY_BE_ZERO)}
    photometric = read_text(header, "PhotometricInterpretation").upper()
    if not {"Rows", "Columns"} <= present.keys() and not (has_pixels and (present or photometric)):
        raise DataError("is a DICOM file without an image, such as a report or a directory.")
    if present.pop("NumberOfFrames", 1) > 1:
        raise DataError("has several frames, but a radiograph has one: save the right frame as its own file.")
    assumed = _assume(present, photometric)
    complete = {**assumed, **present}
    missing = [name for name in ("Rows", "Columns", "BitsAllocated") if name not in complete]
    missing += [] if photometric else ["PhotometricInterpretation"]
    if missing:
        raise DataError(f"lacks {' and '.join(missing)}, without which its pixels cannot be read: export it again.")
    require_size(complete["Columns"], complete["Rows"])
    _require_readable(complete, photometric)
    notes = [f"header lacks {name}, which was assumed to be {number}" for name, number in assumed.items()]
    if not complete["BitsStored"] <= complete["HighBit"] + 1 <= complete["BitsAllocated"]:
        complete["HighBit"] = complete["BitsStored"] - 1
        notes.append("HighBit contradicts BitsStored and was ignored")
    header.PhotometricInterpretation, header.NumberOfFrames = photometric, 1
    for name, number in complete.items():
        setattr(header, name, number)
    return notes


def _assume(present: dict[str, int], photometric: str) -> dict[str, int]:
    """Return values for the missing elements that have only one sensible value."""
    samples = present.get("SamplesPerPixel", 3 if photometric in _COLOUR else 1)
    stored = present.get("BitsStored", present["HighBit"] + 1 if "HighBit" in present else present.get("BitsAllocated"))
    values = {"SamplesPerPixel": samples, "PixelRepresentation": 0}
    if samples == 3:
        values["PlanarConfiguration"] = 0
    if stored is not None:
        values |= {"BitsAllocated": 8 if stored <= 8 else 16, "BitsStored": stored, "HighBit": stored - 1}
    return {name: number for name, number in values.items() if name not in present}


def _require_readable(numbers: dict[str, int], photometric: str) -> None:
    if numbers["BitsAllocated"] not in (8, 16):
        raise DataError("has a BitsAllocated of neither 8 nor 16, which is not supported: save it with 16 bits.")
    if not 1 <= numbers["BitsStored"] <= numbers["BitsAllocated"]:
        raise DataError("has a BitsStored that contradicts its BitsAllocated: export it again.")
    if photometric not in _SAMPLES:
        raise DataError("has an unsupported PhotometricInterpretation: export it as MONOCHROME2 or RGB.")
    if numbers["SamplesPerPixel"] not in _SAMPLES[photometric]:
        raise DataError("has a SamplesPerPixel that contradicts its PhotometricInterpretation: export it again.")
    flags = ["PixelRepresentation", *(["PlanarConfiguration"] if numbers["SamplesPerPixel"] == 3 else [])]
    if wrong := [name for name in flags if numbers[name] not in (0, 1)]:
        raise DataError(f"has a {' and a '.join(wrong)} that is neither 0 nor 1: export it again.")


def _integer(header: Dataset, name: str) -> int | None:
    """Read an integer; None if the element is missing or empty."""
    if name not in header:
        return None
    try:
        value = header[name].value
        return None if value is None or value == "" else int(value)
    except Exception:  # pydicom raises many kinds; multiple values are invalid too
        raise DataError(f"has a {name} that is not a single integer: export it again.") from None


def read_text(header: Dataset, name: str) -> str:
    """Read the first value of an element; empty if the element is missing or cannot be decoded."""
    value = None
    with suppress(Exception):
        value = header.get(name)
    values = [value] if value is None or isinstance(value, (str, bytes)) else [*value]
    return str(values[0]).strip(" \0") if values and values[0] else ""


def read_numbers(header: Dataset, name: str | int) -> list[float]:
    """Read the numbers of an element: NaN for each invalid value, an empty list if it is missing or empty."""
    if name not in header:
        return []
    raw = header.get_item(name).value
    try:
        value = header[name].value
        if value is None or value == "":
            return []
        return [float(number) for number in (value if isinstance(value, (Sequence, MultiValue)) else [value])]
    except Exception:  # pydicom raises many kinds, for all values if one of them is invalid
        return [_number(part) for part in raw.split(b"\\")] if isinstance(raw, bytes) else [math.nan]


def _number(text: bytes) -> float:
    try:
        return float(text.strip(b" \0"))
    except ValueError:
        return math.nan


def describe_mismatches(header: Dataset) -> list[str]:
    """Return notes on header elements that contradict a frontal chest radiograph."""
    position, modality, part = (
        _fold(read_text(header, name)) for name in ("ViewPosition", "Modality", "BodyPartExamined")
    )
    mismatches = {
        "lateral view according to the header": position in _LATERAL_VIEWS,
        "not a plain radiograph according to the header": modality not in _RADIOGRAPHY_MODALITIES,
        "not a chest image according to the header": part not in _UNSPECIFIED_PARTS and not _CHEST.search(part),
    }
    return [note for note, applies in mismatches.items() if applies]


def _fold(text: str) -> str:
    """Convert text to upper case without accents, after repairing UTF-8 that was decoded as Latin-1."""
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    letters = unicodedata.normalize("NFKD", text.upper().translate(_UNACCENTED))
    return unicodedata.normalize("NFC", "".join(letter for letter in letters if not unicodedata.combining(letter)))
