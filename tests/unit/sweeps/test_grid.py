from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from pneumo.errors import ConfigError
from pneumo.sweeps.grid import refuse_divided_paths, refuse_shared

PARSER = OverridesParser.create()


def test_a_path_with_a_comma_is_not_divided_among_jobs(tmp_path: Path) -> None:
    line = f"data.root={tmp_path}/a,b"
    refuse_divided_paths([PARSER.parse_override(line)])
    (tmp_path / "a,b").mkdir()
    with pytest.raises(ConfigError, match="is one path") as error:
        refuse_divided_paths([PARSER.parse_override(line)])
    assert f"""'data.root="{tmp_path}/a,b"'""" in str(error.value)
    refuse_divided_paths([PARSER.parse_override(f'data.root="{tmp_path}/a,b"')])


def test_a_shared_setting_with_a_comma_is_shown_with_quotes() -> None:
    with pytest.raises(ConfigError, match="one with a comma is quoted: 'paths"):
        refuse_shared([PARSER.parse_override("paths.output_dir=a,b")])
