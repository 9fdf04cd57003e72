import re
from pathlib import Path

import pytest
from helpers.commands import ROOT
from helpers.documents import PAGES

FOLDERS = ("", "src/pneumo/", "src/", "tests/")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(#[^)\s]*)?\)")


def read_page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub generates for a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {f"#{re.sub(r'[^a-z0-9 _-]', '', heading.lower()).replace(' ', '-')}" for heading in headings}


def count_words(text: str) -> int:
    """Count words; table borders and other marks without letters or digits do not count."""
    return sum(any(map(str.isalnum, word)) for word in text.split())


@pytest.mark.parametrize("name", PAGES)
def test_files_named_on_a_page_exist(name: str) -> None:
    paths = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|yaml))`", read_page(name)))
    assert name != "docs/ARCHITECTURE.md" or paths
    missing = [path for path in paths if not any((ROOT / folder / path).is_file() for folder in FOLDERS)]
    assert not missing


@pytest.mark.parametrize("name", PAGES)
def test_links_of_a_page_are_valid(name: str) -> None:
    broken = []
    for target, anchor in LINK.findall(read_page(name)):
        path = (ROOT / name).parent / target if target else ROOT / name
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target + anchor)
    assert not broken


def test_pages_named_in_the_code_exist() -> None:
    files = [path for folder in ("src", "conf", "benchmarks") for path in (ROOT / folder).rglob("*")]
    sources = [path for path in files if path.suffix in (".py", ".yaml", ".html", ".md")]
    texts = [path.read_text(encoding="utf-8") for path in sources]
    pages = {page for text in texts for page in re.findall(r"docs/[A-Z_]+\.md", text)}
    pages |= {f"docs/{page}.md" for text in texts for page in re.findall(r"=examples\(\s*\"(\w+)\"", text)}
    assert len(pages) > 5
    assert pages <= set(PAGES)


def test_measurements_are_listed_in_the_appendix() -> None:
    tables = {path.name for path in (ROOT / "docs" / "measurements").glob("*.csv")}
    listed = {re.sub(r"^speed_.*", "speed_*.csv", name) for name in tables}
    assert listed == set(re.findall(r"`([\w*]+\.csv)`", read_page("docs/APPENDIX.md")))


def test_pages_are_short() -> None:
    readme = read_page("README.md")
    assert len(readme.splitlines()) <= 150
    assert count_words(readme) <= 1200
    assert sum(count_words(read_page(name)) for name in PAGES if name != "README.md") <= 10_000
    for name in PAGES:
        lines = FENCED.sub("", read_page(name)).splitlines()
        assert not [line for line in lines if len(line) > 120 and not line.startswith(("|", "!"))], name


def test_unit_tests_mirror_the_packages_of_their_modules() -> None:
    unit, strays = ROOT / "tests" / "unit", []
    for path in unit.rglob("test_*.py"):
        package = path.parent.relative_to(unit)
        folder = ROOT / "tests" / package if package.name == "helpers" else ROOT / "src" / "pneumo" / package
        names = {f"test_{module.stem}" for module in folder.glob("*.py")}
        if not any(path.stem == name or path.stem.startswith(f"{name}_") for name in names):
            strays.append(str(path.relative_to(unit)))
    assert not strays
