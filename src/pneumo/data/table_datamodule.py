"""Data module of images that a table lists."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.index import Radiograph, label_subtypes
from pneumo.data.patient_names import complete_patients
from pneumo.data.splits import (
    METHODS,
    SITE,
    Splits,
    hold_out_site,
    hold_out_test,
    report_shared_patients,
    split_radiographs,
)
from pneumo.data.table_index import index_table, table_source
from pneumo.errors import ConfigError, DataError


class TableDataModule(ChestXrayDataModule):
    """Radiographs of a table with the columns file and label, and optionally patient, site, split and others.

    Test images are those of the split `test`; without such images a fraction of the patients, the same with all seeds;
    with `split=site` all images of one site.
    """

    _split_methods = (*METHODS, SITE)
    _missing_validation = "The table has no validation images"

    def __init__(
        self,
        table: str | None,
        preset: str | None,
        columns: Mapping[str, str | None],
        mapping: Mapping[Any, Any] | None,
        site: str | float | None,
        test_fraction: float,
        root: str | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Store the arguments, described in `conf/data/table.yaml`; `options` are those of the base class."""
        if table is None:
            raise ConfigError(
                "data.table=null must be the path of a CSV file with the columns file and label, such as "
                "data.table=labels.csv. Set it."
            )
        super().__init__(root=str(Path(table).parent) if root is None else root, **options)
        self.source = table_source(table, root, preset, columns, mapping)
        self.site, self.test_fraction = None if site is None else str(site), test_fraction
        self._data_hash = ""

    @property
    def data_hash(self) -> str:
        """Hash of paths, file sizes, classes, patients, sites and splits of the table, 16 hex digits."""
        return self._data_hash

    @property
    def non_test_indices(self) -> list[int]:
        """Indices of all radiographs: each may be a training image in some split."""
        return list(range(len(self.radiographs)))

    def _index(self) -> list[Radiograph]:
        found = index_table(self.source, self.classes)
        self.root, self.extra_columns, self._data_hash = found.root, found.extra_columns, found.data_hash
        known = [image.patient for image in found.radiographs]
        paths = [image.path for image in found.radiographs]
        radiographs = complete_patients(self.root, found.radiographs, known, paths, "the column patient")
        if self.task == "subtype":
            radiographs, self.classes = label_subtypes(radiographs, self.classes)
        if self.split == "official" and not any(image.split == "test" for image in radiographs):
            raise DataError(
                f"data.split=official requires test images, but no row of {self.source.table} has test in a column "
                "split. Use data.split=patient, which holds out data.test_fraction of the patients, or add the column."
            )
        return hold_out_site(radiographs, str(self.site)) if self.split == SITE else radiographs

    def _split(self, groups: Sequence[int] | None) -> Splits:
        if not any(image.split == "test" for image in self.radiographs):
            self.radiographs = hold_out_test(self.radiographs, self.test_fraction, groups)
        method = "patient" if self.split == SITE else self.split
        splits = split_radiographs(
            self.radiographs, method, self.val_fraction, self.seed, self.folds, self.fold, groups
        )
        report_shared_patients(splits)
        self._check_classes(splits)
        return splits

    def _check_classes(self, splits: Splits) -> None:
        for split, images in splits.items():
            present = {image.label for image in images}
            if absent := [name for label, name in enumerate(self.classes) if label not in present]:
                shown = f"data.split={self.split}" + (f" data.site={self.site}" if self.split == SITE else "")
                raise DataError(
                    f"The {split} images of {self.source.table} with {shown} have no image of {', '.join(absent)}. "
                    "Training, validation and test each need every class. Use another split, or add images."
                )
