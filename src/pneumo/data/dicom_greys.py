"""Grey levels of a monochrome DICOM image: from stored values by rescaling and VOI LUT or window to 8 bits."""

import math
from collections.abc import Iterator
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_windowing

from pneumo.data.dicom_header import OVERLAYS, read_numbers, read_text
from pneumo.errors import DataError

Values = NDArray[np.float64]
Counts = NDArray[np.int64]
_TAIL = 0.001  # fraction of the pixels at each end that may be outliers, such as detector defects
_MIN_CENTRAL_RANGE = 0.1  # fraction of the grey scale that the central 90 % of the pixels should span
_MAX_CLIPPED = 0.99  # fraction of the pixels that a usable window may make black, or white
_MAX_VOI_TRANSFORMS = 32  # each is computed for all values until one is usable


def build_grey_table(
    stored: NDArray[np.integer], counts: Counts, dataset: Dataset, *, packed: bool
) -> tuple[NDArray[np.uint8], list[str]]:
    """Compute the grey level of each possible pixel value, and notes on ignored header elements.

    Args:
        stored: All values of 8 or 16 bits, shape (256,) or (65536,).
        counts: Number of pixels with each of these values, same shape.
        dataset: A header completed by `complete_header`.
        packed: Whether BitsStored and HighBit apply to the values; JPEG decoders return plain values.
    """
    padding = _find_padding(stored, dataset)
    counts = np.where(padding, 0, counts)
    if not counts.any():
        raise DataError("contains only padding and no image.")
    notes: list[str] = []
    with np.errstate(all="ignore"):
        plain = _extract_bits(stored, counts, dataset, notes) if packed else stored
        values = _apply_modality(plain, dataset)
        fraction = next(_usable_voi_transforms(values, counts, dataset, notes), None)
        if fraction is None and dataset.BitsStored == 8 and (values == np.arange(len(values)))[counts > 0].all():
            fraction = values / 255
        if fraction is None:
            fraction = _stretch(values, counts, notes)
    greys = (fraction.clip(0, 1) * 255).round().astype(np.uint8)
    if is_inverted(dataset):
        greys = 255 - greys
    greys[padding] = 0
    return greys, notes


def is_inverted(dataset: Dataset) -> bool:
    """Return whether the header requires that the smallest value is displayed white."""
    # MONOCHROME1 requires the shape INVERSE, so the two together invert only once.
    inverse = read_text(dataset, "PresentationLUTShape").upper() == "INVERSE"
    return inverse or dataset.PhotometricInterpretation == "MONOCHROME1"


def _find_padding(stored: NDArray[np.integer], dataset: Dataset) -> NDArray[np.bool_]:
    """Return a mask of the padding values."""
    value, limit = (read_numbers(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if not value or not math.isfinite(value[0]):
        return np.zeros(len(stored), bool)
    limit = limit if limit and math.isfinite(limit[0]) else value
    ends = [stored[int(end[0]) % len(stored)] for end in (value, limit)]  # negative values wrap to their codes
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))


def _extract_bits(
    stored: NDArray[np.integer], counts: Counts, dataset: Dataset, notes: list[str]
) -> NDArray[np.integer]:
    """Return the BitsStored bits below HighBit of each value (PS3.5, 8.1.1)."""
    above = 8 * stored.itemsize - 1 - dataset.HighBit
    below = dataset.HighBit + 1 - dataset.BitsStored
    codes = np.arange(len(stored))
    present, fitting = counts > 0, codes < 1 << dataset.BitsStored
    if below and fitting[present].all() and (codes[present] % (1 << below)).any():
        notes.append("HighBit contradicts the pixels and was ignored")
        above, below = above + below, 0
    extracted = np.asarray((stored << above) >> (above + below))
    overlaid = any(any(read_numbers(dataset, tag)) for tag in OVERLAYS)
    if not below and not overlaid and (present & ~fitting & (extracted != stored)).any():
        notes.append("pixels have more bits than BitsStored")
        return stored
    return extracted


def _apply_modality(stored: NDArray[np.integer], dataset: Dataset) -> Values:
    """Apply the modality LUT or, without one, the rescaling (PS3.3, C.11.1)."""
    values = stored.astype(float)
    if sequence := dataset.get("ModalityLUTSequence"):
        if (table := _read_table(sequence[0], dataset)) is None:
            raise DataError("has an incomplete ModalityLUTSequence: export it again.")
        return _apply_table(values, *table)
    slope, *_ = read_numbers(dataset, "RescaleSlope") or [1.0]
    intercept, *_ = read_numbers(dataset, "RescaleIntercept") or [0.0]
    values = values * slope + intercept
    if not np.isfinite(values).all():
        raise DataError("has a RescaleSlope or a RescaleIntercept that is not a finite number: export it again.")
    return values


def _usable_voi_transforms(values: Values, counts: Counts, dataset: Dataset, notes: list[str]) -> Iterator[Values]:
    """Yield the values, scaled from black (0) to white (1), by each VOI LUT or window with a visible result."""
    for kind, fraction in _voi_transforms(values, dataset, notes):
        if fraction is None:
            notes.append(f"{kind} is invalid and was ignored")
        elif (
            max(counts[end].sum() for end in (fraction < 0.5 / 255, fraction > 254.5 / 255))
            <= _MAX_CLIPPED * counts.sum()
        ):
            yield fraction
        else:
            notes.append(f"{kind} makes nearly all pixels black or white and was ignored")


def _voi_transforms(values: Values, dataset: Dataset, notes: list[str]) -> Iterator[tuple[str, Values | None]]:
    items = dataset.get("VOILUTSequence") or []
    centers, widths = read_numbers(dataset, "WindowCenter"), read_numbers(dataset, "WindowWidth")
    windows = list(zip_longest(centers, widths, fillvalue=math.nan))
    if len(items) + len(windows) > _MAX_VOI_TRANSFORMS:
        raise DataError(f"has more than {_MAX_VOI_TRANSFORMS} windows and VOI lookup tables: export it again.")
    for kind, item in zip(_numbered("VOI lookup table", len(items)), items, strict=True):
        fraction = None
        if (table := _read_table(item, dataset)) is not None:
            # Entries often have fewer bits than the descriptor says, such as 12 of 16.
            fraction = _apply_table(values, *table) / ((1 << int(table[0].max()).bit_length()) - 1 or 1)
        yield kind, fraction
    function = read_text(dataset, "VOILUTFunction") or "LINEAR"
    if centers and not function.isupper():
        notes.append("VOILUTFunction is not in upper case")
    for kind, (center, width) in zip(_numbered("window", len(windows)), windows, strict=True):
        yield kind, _apply_window(values, center, width, function)


def _numbered(kind: str, count: int) -> list[str]:
    return [kind] if count == 1 else [f"{kind} {number} of {count}" for number in range(1, count + 1)]


def _apply_window(values: Values, center: float, width: float, function: str) -> Values | None:
    """Apply a window with pydicom; None if the window is invalid by the standard."""
    if not np.isfinite([center, width]).all():
        return None
    window = Dataset()  # one unsigned bit makes the output range of pydicom 0 to 1
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 1, 0
    window.VOILUTFunction = function
    window.add_new("WindowCenter", "FD", center)  # a decimal string would be limited to 16 characters
    window.add_new("WindowWidth", "FD", width)
    try:
        return np.asarray(apply_windowing(values, window))
    except ValueError:
        return None


def _stretch(values: Values, counts: Counts, notes: list[str]) -> Values:
    """Scale the occurring values, except a few far outliers, from their range to 0 to 1."""
    order = np.argsort(values)
    order = order[counts[order] > 0]
    present = values[order]
    cumulative = np.cumsum(counts[order]) / counts.sum()
    low, high = present[np.searchsorted(cumulative, [_TAIL, 1 - _TAIL])]
    fence = (high - low) / 2
    inliers = present[(present >= low - fence) & (present <= high + fence)] if fence else present
    if len(inliers) < len(present):
        notes.append("a few pixels are far brighter or darker than all others and were excluded from the grey scale")
    fraction = np.asarray((values - inliers[0]) / (inliers[-1] - inliers[0] or 1.0))
    central = fraction[order[np.searchsorted(cumulative, [0.05, 0.95])]]
    if len(inliers) > 1 and np.ptp(central) < _MIN_CENTRAL_RANGE:
        notes.append("nearly all pixels have almost the same grey value because some are far brighter or darker")
    return fraction


def _apply_table(values: Values, entries: Values, first: int) -> Values:
    """Map values with a lookup table; values beyond its ends get the first or last entry.

    pydicom's `apply_voi` and `apply_modality_lut` compute indices in the dtype of the entries or values, which can
    overflow, and do not support tables of bytes.
    """
    return np.asarray(entries[np.rint(values - first).clip(0, len(entries) - 1).astype(int)])


def _read_table(item: Dataset, dataset: Dataset) -> tuple[Values, int] | None:
    """Read the entries of a lookup table and the first value that it maps; None if it is incomplete."""
    try:
        size, first, bits = (int(number) for number in item.LUTDescriptor)
        data = item.LUTData
        size = size % 65536 or 65536
        if isinstance(data, bytes):  # OW, which pydicom does not decode
            wide = "<u2" if dataset.original_encoding[1] else ">u2"
            data = np.frombuffer(data[: len(data) // 2 * 2], wide if bits > 8 or len(data) >= 2 * size else "u1")
        entries = np.atleast_1d(np.asarray(data, float))[:size]
    except (AttributeError, TypeError, ValueError, NotImplementedError):
        return None
    return (entries, first) if len(entries) == size and np.isfinite(entries).all() else None
