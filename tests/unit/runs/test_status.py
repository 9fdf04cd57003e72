from pathlib import Path

import pytest

from pneumo.runs.status import TRACKERS, read_tracker_ids, write_tracker_id


def test_each_tracker_keeps_its_id(tmp_path: Path) -> None:
    assert read_tracker_ids(tmp_path) == {}
    write_tracker_id(tmp_path, "mlflow", "1")
    write_tracker_id(tmp_path, "wandb", "2")
    write_tracker_id(tmp_path, "mlflow", "3")
    assert read_tracker_ids(tmp_path) == {"mlflow": "3", "wandb": "2"}


@pytest.mark.parametrize("content", ["", "[1]", '{"mlflow": 1}', '{"mlflow": '])
def test_a_damaged_file_has_no_ids_and_is_replaced(content: str, tmp_path: Path) -> None:
    (tmp_path / TRACKERS).write_text(content)
    assert read_tracker_ids(tmp_path) == {}
    write_tracker_id(tmp_path, "mlflow", "1")
    assert read_tracker_ids(tmp_path) == {"mlflow": "1"}
