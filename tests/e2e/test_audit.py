"""Audit of the real radiographs."""

import os
from pathlib import Path

import pytest

from pneumo.audit.findings import audit
from pneumo.audit.verdicts import assess
from pneumo.data.image_tree import read_tree


@pytest.mark.real
def test_known_properties_of_the_data_set_are_detected() -> None:
    findings = audit(read_tree(Path(os.environ["PNEUMO_DATA_ROOT"])))
    assert len(findings.images.files) == 5_856
    assert findings.identical == (30, 62)
    assert len(findings.duplicates) == 30
    assert all(len(group.splits) == len(group.labels) == 1 and group.identical for group in findings.duplicates)
    patients = findings.patients
    assert (len(patients.shared), patients.shared_subtypes, patients.conclusion) == (170, 0, "different")
    assert patients.within.low is not None
    assert patients.subtypes.high is not None
    assert patients.within.low > 0.1 > 0.05 > patients.subtypes.high
    areas = {probe.name: probe.low for probe in findings.probes}
    assert areas.pop("shape") == pytest.approx(0.5, abs=0.01)  # all are squares
    assert all(low is not None and low > 0.8 for low in areas.values())
    verdicts = {verdict.check: verdict.severity for verdict in assess(findings)}
    assert (verdicts["patients"], verdicts["numbering"], verdicts["frame"]) == ("note", "note", "warning")
