"""Factors of subgroups: columns of the labelled data, and the site."""

from __future__ import annotations

from collections.abc import Sequence

from pneumo.data.label_table import STANDARD
from pneumo.data.labelled_images import LabelledSet
from pneumo.errors import ConfigError
from pneumo.inference.evaluate.cohort import Cohort
from pneumo.inference.evaluate.confounding import is_age
from pneumo.metrics.subgroups import UNKNOWN, age_bands

SITE = "site"


def choose_factors(labelled: LabelledSet, names: Sequence[str]) -> list[str]:
    """Return the columns with these names, each once; case is ignored where no column has exactly this name.

    Raises:
        ConfigError: A name is not a column, several columns match it, or the column is not a factor.
    """
    known = [*labelled.extra_columns, *([SITE] if any(image.site for image in labelled.images) else [])]
    return list(dict.fromkeys(_match(name, known) for name in names))


def factor_values(cohort: Cohort, name: str) -> Sequence[str]:
    """Return the level of each image, (N,); ages are grouped into bands."""
    if name in cohort.extra_columns:
        values = cohort.column(name)
        return age_bands(values) if is_age(name) else values
    return [image.site for image in cohort.images]


def unknown_columns(cohort: Cohort, chosen: Sequence[str]) -> dict[str, str]:
    """Return the columns without a known value and an example of a value, which may be empty.

    Args:
        cohort: The images.
        chosen: Factors of subgroups; columns of ages count too, unless they are empty.
    """
    found = {}
    for name in cohort.extra_columns:
        values = cohort.column(name)
        example = next(filter(None, values), "")
        levels = age_bands(values) if is_age(name) else [value or UNKNOWN for value in values]
        if (name in chosen or (is_age(name) and example)) and set(levels) == {UNKNOWN}:
            found[name] = example
    return found


def _match(name: str, known: Sequence[str]) -> str:
    if name in known:
        return name
    matches = [each for each in known if each.casefold() == name.casefold()]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ConfigError(f"--by {name} matches several columns: {', '.join(matches)}. Use one of these names.")
    listed = f"the columns {', '.join(known)}" if known else "no columns of this kind"
    if name.casefold() == SITE:
        raise ConfigError(
            f"--by {name} needs sites, but the data have none. Add a column site, or use several folders or tables."
        )
    if name.casefold() in STANDARD:
        use = "Use one of these" if known else "Omit --by"
        raise ConfigError(f"--by {name} is not a factor of subgroups. The data have {listed}. {use}.")
    if not known:
        raise ConfigError(
            f"--by {name} needs a column, but the data have {listed}. List the images in a table with this column, and "
            "use --labels TABLE."
        )
    raise ConfigError(
        f"--by {name} is not a column of the data, which have {listed}. Use one of these, or add a column to the table "
        "of labels."
    )
