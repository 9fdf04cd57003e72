"""Selection of labelled data by the options that several commands have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

from pneumo.common.text import count_noun
from pneumo.data.labelled_images import SPLIT_NAMES, LabelledImage, LabelledSet, read_labelled, set_name
from pneumo.data.option_style import COMMAND, OptionStyle
from pneumo.errors import ConfigError, DataError


@dataclass(frozen=True)
class DataSelection:
    """Labelled data sets, and how their tables and labels are read; see `read_labelled`."""

    data: Sequence[Path] = ()  # folders or tables
    labels: Sequence[Path] = ()  # tables of the folders, in the same order; without folders, tables on their own
    preset: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    mapping: Mapping[str, str] = field(default_factory=dict)
    split: str = "test"
    style: OptionStyle = COMMAND  # notation of options in errors

    def __post_init__(self) -> None:
        """Replace other spellings of the split; `read_labelled` rejects unknown ones."""
        object.__setattr__(self, "split", SPLIT_NAMES.get(str(self.split).casefold(), self.split))

    @property
    def files(self) -> list[Path]:
        """Paths of the tables, which outputs must not overwrite."""
        return [*self.labels, *(path for path in self.data if path.is_file())]

    def pairs(self) -> list[tuple[Path, Path | None]]:
        """Return the pairs of a folder and its table; a folder or a table on its own is paired with None.

        Raises:
            ConfigError: There are no data, or more tables than folders.
            DataError: A table of `labels` does not exist.
        """
        if not self.data and not self.labels:
            raise ConfigError(
                "No data are given. Use a folder of class folders or a CSV table, such as scans or --labels labels.csv."
            )
        if self.data and len(self.labels) > len(self.data):
            if table := next((path for path in self.data if path.is_file()), None):
                raise ConfigError(
                    f"{count_noun(len(self.labels), 'table')} (--labels) cannot be combined with {table}, which is a "
                    "table itself: --labels requires folders. Give only tables, or a folder for each table."
                )
            raise ConfigError(
                f"{len(self.labels):,} tables (--labels) are given for {count_noun(len(self.data), 'folder')}: each "
                "folder has at most one table, in the same order. Repeat the folder for each table, or give only "
                "tables."
            )
        for path in self.labels:
            if path.is_dir() or not path.exists():
                raise DataError(
                    f"{self.style.labels.format(path)} {'is a folder' if path.is_dir() else 'does not exist'}: it must "
                    "be a CSV table with the columns file and label. Use the path of such a table."
                )
        return list(zip_longest(self.data, self.labels)) if self.data else [(path, None) for path in self.labels]

    def read(self) -> list[LabelledSet]:
        """Read the sets; equal names are made distinct, and sets of one folder are named by their tables.

        Raises:
            ConfigError: There are no data, or more tables than folders.
            DataError: A set cannot be read; see `read_labelled`.
        """
        pairs = self.pairs()
        sets = [
            read_labelled(
                data,
                labels=labels,
                preset=self.preset,
                columns=self.columns,
                mapping=self.mapping,
                split=self.split,
                style=self.style,
            )
            for data, labels in pairs
        ]
        uses = Counter(data.absolute() for data, _ in pairs)
        sources = [data if labels is None or uses[data.absolute()] == 1 else labels for data, labels in pairs]
        return _distinguish(sets, [set_name(source) for source in sources])


def merge_sets(sets: Sequence[LabelledSet]) -> LabelledSet:
    """Merge several sets into one, with the set's name as site of images without a site.

    Patients with the same name in several sets count as one: this is right for sets of one hospital, and for others it
    hardly widens the intervals. Columns that a set lacks are empty there.
    """
    if len(sets) == 1:
        return sets[0]
    columns = list(dict.fromkeys(name for each in sets for name in each.extra_columns))
    return LabelledSet(
        name=", ".join(each.name for each in sets),
        images=tuple(_adopt(image, each, columns) for each in sets for image in each.images),
        extra_columns=tuple(columns),
        skipped=tuple((f"{each.name}/{name}", reason) for each in sets for name, reason in each.skipped),
    )


def parse_pairs(option: str, texts: Sequence[str], example: str) -> dict[str, str]:
    """Parse values of a repeatable option NAME=VALUE.

    Raises:
        ConfigError: A value has no equals sign or an empty side, or a name occurs twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not (name and sign and value):
            raise ConfigError(f"{option} {text!r} is not a pair NAME=VALUE. Use, for example, {option} {example}.")
        if name in pairs:
            raise ConfigError(f"{option} is given twice for {name!r}. Use it once for each name.")
        pairs[name] = value
    return pairs


def _adopt(image: LabelledImage, owner: LabelledSet, columns: Sequence[str]) -> LabelledImage:
    values = dict(zip(owner.extra_columns, image.extra, strict=True))
    return replace(
        image,
        name=f"{owner.name}/{image.name}",
        site=image.site or owner.name,
        extra=tuple(values.get(name, "") for name in columns),
    )


def _distinguish(sets: Sequence[LabelledSet], names: Sequence[tuple[str, str]]) -> list[LabelledSet]:
    """Name the sets by pairs of a parent folder and a name; the folder, or a number, is added to equal names only."""
    counts = Counter(name for _, name in names)
    full = [f"{folder}/{name}" if counts[name] > 1 else name for folder, name in names]
    seen, total = Counter[str](), Counter(full)
    distinct = []
    for each, name in zip(sets, full, strict=True):
        seen[name] += 1
        distinct.append(replace(each, name=f"{name} {seen[name]}" if total[name] > 1 else name))
    return distinct


def written_images(outputs: Sequence[tuple[str, Path | None]], files: Iterable[Path]) -> list[Path]:
    """Return the images that an output would overwrite; others are not resolved, since links are slow."""
    existing = [path for _, path in outputs if path is not None and path.is_file()]
    return [file for file in files if any(file.samefile(path) for path in existing)] if existing else []
