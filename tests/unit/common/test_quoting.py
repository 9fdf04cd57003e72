import os
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from pneumo.common.text import quote_override, quote_value

PARSER = OverridesParser.create()
PATHS = st.text(st.characters(exclude_characters="\0~\n\r", exclude_categories=()), min_size=1)


@given(PATHS)
def test_hydra_reads_a_quoted_value_as_it_stands(text: str) -> None:
    assert PARSER.parse_override(f"data.root={quote_value(text)}").value() == text


@given(PATHS.filter(lambda text: not text.startswith("[")))
def test_shell_and_hydra_read_a_quoted_override_as_it_stands(text: str) -> None:
    (word,) = shlex.split(quote_override(f"data.root={text}"))
    assert PARSER.parse_override(word).value() == text


@pytest.mark.parametrize(
    ("override", "quoted"),
    [
        ("data.root=/x/archive (1)", """'data.root="/x/archive (1)"'"""),
        ("data.root=/x/a=b", """'data.root="/x/a=b"'"""),
        ("data.root=/x/Röntgen", """'data.root="/x/Röntgen"'"""),
        ("data.root=2024", """'data.root="2024"'"""),
        ("data.root=null", """'data.root="null"'"""),
        ("data.root=/data/chest_xray-1.0", "data.root=/data/chest_xray-1.0"),
        ("data.classes=[A, É]", """'data.classes=["A","É"]'"""),
        ("data.root=~/x y", f"""'data.root="{os.path.expanduser("~")}/x y"'"""),
    ],
)
def test_only_what_needs_quotes_gets_them(override: str, quoted: str) -> None:
    assert quote_override(override) == quoted
