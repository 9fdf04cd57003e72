import html
import os
import shlex

import pytest
from helpers.hostile_names import NAMES, is_harmless
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pneumo.common.text import (
    code_block,
    code_span,
    count_noun,
    escape_line,
    escape_markdown,
    escape_paragraph,
    escape_prose,
    format_probability,
    quote_override,
    quote_value,
)

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TRICKY = st.text(st.sampled_from("ab1 .`*_<>[]()|~&;#-+:/!\\\"'\t\n")) | st.text()


def quoted(text: str) -> str:
    return html.escape(text, quote=False).replace('"', "&quot;")


@pytest.mark.parametrize("name", NAMES)
def test_escaped_names_are_one_harmless_line(name: str) -> None:
    for escaped in (escape_line(name), escape_paragraph(name)):
        assert is_harmless(escaped)
        assert len(escaped.splitlines()) == 1
    assert is_harmless(escape_prose(name))


@settings(max_examples=25)
@given(st.text(st.characters(categories=("L", "M", "N", "P", "S"))))
def test_ordinary_text_is_not_escaped(text: str) -> None:
    assert escape_line(text) == text


def test_errors_are_one_paragraph() -> None:
    assert escape_paragraph("size mismatch:\n\tweight\n") == "size mismatch: weight"
    assert escape_prose("95\u00a0%\n- a\x1b") == "95\u00a0%\n- a\\x1b"


@settings(max_examples=25)
@given(TRICKY)
@example("# a")
@example("---")
@example("1. a")
@example("&lt;")
@example("http://example.org www.example.org")
@example("__a__ a_b_c _d_")
def test_markdown_renders_escaped_text_literally(text: str) -> None:
    shown = quoted(escape_line(text.strip(), "\xa0").strip())
    line = escape_markdown(text.strip()).strip()
    assert MARKDOWN.render(f"- x {line}") == f"<ul>\n<li>x {shown}</li>\n</ul>\n".replace("x </li>", "x</li>")
    assert f"<td>{shown}</td>" in MARKDOWN.render(f"| a | b |\n|---|---|\n| {line} | c |")


@pytest.mark.parametrize("text", ["# a", "- a", "+", "1. a", "> a", "---"])
def test_escaped_text_starts_no_markdown_block(text: str) -> None:
    assert MARKDOWN.render(f"- {escape_markdown(text)}") == f"<ul>\n<li>{quoted(text)}</li>\n</ul>\n"


@pytest.mark.parametrize(
    "text",
    ["efficientnet_lite0", "95 % intervals (Wilson) ± 0.1", "#: rows", "+0.0123", "-0.1", ">0.999", "a.b/c.yaml"],
)
def test_ordinary_text_is_not_escaped_in_markdown(text: str) -> None:
    assert escape_markdown(text) == text


@settings(max_examples=25)
@given(TRICKY)
def test_inline_code_contains_exactly_the_text(text: str) -> None:
    shown = f"<code>{quoted(escape_line(text))}</code>"
    assert shown in MARKDOWN.render(f"| a | b |\n|---|---|\n| {code_span(text)} | c |") or not text.strip()


def test_a_code_block_contains_exactly_the_text() -> None:
    assert MARKDOWN.render(code_block("a: |\n  ```\n  <b>\n", "yaml")).count("<pre>") == 1
    assert code_block("a: 1\n", "yaml") == "```yaml\na: 1\n```"


PARSER = OverridesParser.create()
PATHS = st.text(st.characters(exclude_characters="\0~\n\r", exclude_categories=()), min_size=1)


@given(PATHS)
def test_hydra_reads_a_quoted_value_literally(text: str) -> None:
    assert PARSER.parse_override(f"data.root={quote_value(text)}").value() == text


@given(PATHS.filter(lambda text: not text.startswith("[")))
def test_shell_and_hydra_read_a_quoted_override_literally(text: str) -> None:
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
def test_only_values_that_need_quotes_are_quoted(override: str, quoted: str) -> None:
    assert quote_override(override) == quoted


def test_only_exact_probabilities_are_formatted_as_zero_or_one() -> None:
    assert [format_probability(x) for x in (0, 0.0004, 0.0006, 0.5, 0.9994, 0.9996, 1)] == [
        *("0.000", "<0.001", "0.001", "0.500", "0.999", ">0.999", "1.000")
    ]


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(0, "file", "0 files"), (1, "entry", "1 entry"), (2000, "entry", "2,000 entries")],
)
def test_nouns_agree_with_their_number(number: int, noun: str, text: str) -> None:
    assert count_noun(number, noun) == text
