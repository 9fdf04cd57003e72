"""Confounding: labels that are predictable from properties which should not reveal them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from pneumo.data.table_presets import fold_name
from pneumo.inference.evaluate.cohort import Cohort, FileProperties
from pneumo.metrics.intervals import Array
from pneumo.metrics.probes import Probe, probe
from pneumo.metrics.subgroups import parse_age

METADATA = "file metadata"
AGES = ("age", "patient age")
_UNKNOWN_AGE = -1.0
# Names of columns that describe the patient or the acquisition instead of the finding.
_COLUMNS = (*AGES, "sex", "gender", "patient gender", "view", "view position", "manufacturer", "device", "scanner")


def is_age(column: str) -> bool:
    """Return whether a column contains ages."""
    return _normalise(column) in AGES


def probe_columns(cohort: Cohort, chosen: Iterable[str] = ()) -> list[Probe]:
    """Compute the AUROC of labels predicted from file metadata, from the site, and from columns one by one.

    Args:
        cohort: The images.
        chosen: Columns to probe in addition to those whose name is age, sex, view, device or similar.
    """
    label, groups = cohort.predictions.label, cohort.predictions.clusters
    features = {METADATA: _metadata(cohort.properties)}
    sites = [image.site for image in cohort.images]
    if len(set(sites)) > 1:
        features["site"] = _codes(sites)
    wanted = set(chosen)
    for name in cohort.extra_columns:
        if name in wanted or _normalise(name) in _COLUMNS:
            features[name] = _ages(cohort.column(name)) if is_age(name) else _codes(cohort.column(name))
    with threadpool_limits(1):  # the last bits of a sum depend on the number of threads
        return [probe(name, rows, label, groups) for name, rows in features.items()]


def _normalise(column: str) -> str:
    return fold_name(column.replace("/", " "))


def _metadata(properties: FileProperties) -> Array:
    """Return width, height, file size, bytes per pixel, and format and mode of each file, (N, 5)."""
    sizes = properties.sizes.astype(np.float64)
    return np.column_stack((sizes, sizes[:, 2] / (sizes[:, 0] * sizes[:, 1]), _codes(properties.storage)))


def _codes(values: Sequence[str]) -> Array:
    return np.unique(np.array(values), return_inverse=True)[1].astype(np.float64)[:, None]


def _ages(values: Sequence[str]) -> Array:
    years = [parse_age(value) for value in values]
    return np.array([_UNKNOWN_AGE if age is None else age for age in years])[:, None]
