import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pneumo.errors import ConfigError
from pneumo.inference import inputs
from pneumo.inference.backend import Rules
from pneumo.inference.inputs import InputImage, find_inputs, read_inputs


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with others below it, and work beside it."""
    names = (
        "film10.png",
        "film2.png",
        "Film1.jpeg",
        "notes.txt",
        "b/film.dcm",
        "b/c/film",
        "[1].png",
        "empty/x/.hidden",
    )
    for name in (*names, ".hidden/film.png", "__MACOSX/film.png", ".film.png"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "scans"


ALL = ["[1].png", "b/c/film", "b/film.dcm", "Film1.jpeg", "film2.png", "film10.png", "notes.txt"]


def found(*inputs: str | Path) -> list[str]:
    return [path.as_posix().removeprefix("scans/") for path in find_inputs(inputs)]


@pytest.mark.usefixtures("scans")
def test_folders_are_searched_to_the_bottom_and_sorted_by_number() -> None:
    assert found("scans") == found("scans/") == found(Path("scans")) == ALL


def test_absolute_paths_stay_absolute(scans: Path) -> None:
    assert find_inputs([scans]) == [scans / name for name in ALL]
    assert find_inputs([f"{scans}/film?.png"]) == [scans / "film2.png"]


@pytest.mark.usefixtures("scans")
def test_inputs_keep_their_order_and_come_once() -> None:
    assert found("scans/notes.txt", "scans/b", "scans/b/../notes.txt", "scans") == [
        *("notes.txt", "b/c/film", "b/film.dcm"),
        *(name for name in ALL if name not in ("notes.txt", "b/c/film", "b/film.dcm")),
    ]


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("scans/*.png", ["[1].png", "film2.png", "film10.png"]),
        ("scans/film[0-9].*", ["film2.png"]),
        ("scans/**/film*", ["b/c/film", "b/film.dcm", "film2.png", "film10.png"]),
        ("scans/?", ["b/c/film", "b/film.dcm"]),
        ("scans/[1].png", ["[1].png"]),  # a name before it is a pattern
        ("scans/.hidden/*.png", [".hidden/film.png"]),
        ("scans/.film.png", [".film.png"]),
    ],
)
def test_patterns_that_the_shell_left_alone_are_filled_in(pattern: str, names: list[str]) -> None:
    assert found(pattern) == names


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize("given", ["no.png", "scans/*.bmp", "scans/empty", "", "scans/**x", "scans/\0*"])
def test_an_input_that_matches_nothing_is_named(given: str) -> None:
    with pytest.raises(ConfigError, match="matches no file") as caught:
        find_inputs(["scans", given])
    assert repr(given) in str(caught.value)


def test_links_are_followed_but_not_in_circles(scans: Path) -> None:
    (scans / "b" / "up").symlink_to(scans)
    (scans / "b" / "self").symlink_to(scans / "b")
    (scans / "a").symlink_to(scans / "b")
    assert found("scans") == ["[1].png", "a/c/film", "a/film.dcm", *ALL[3:]]
    assert found("scans/**/film*")[-2:] == ["film2.png", "film10.png"]


def test_what_cannot_be_opened_is_listed_all_the_same(scans: Path) -> None:
    (scans / "lost.png").symlink_to(scans / "gone.png")
    os.mkfifo(scans / "pipe")
    assert {"lost.png", "pipe"} < set(found("scans"))
    assert found("scans/lost.png") == ["lost.png"]


RULES = Rules("timm/x", ("NORMAL", "PNEUMONIA"), 32, 1.0, 0.5, None, False)


@pytest.fixture
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, rules: Rules, show: bool) -> InputImage:
        time.sleep(0.002 * (7 - int(path.name) % 7))  # the first of a few takes longest
        return InputImage(path, error=path.name)

    monkeypatch.setattr(inputs, "read_input", read)


@pytest.mark.usefixtures("_slow")
def test_films_come_in_order_and_no_more_than_a_few_are_ahead() -> None:
    asked = 0

    def paths() -> Iterator[Path]:
        nonlocal asked
        for number in range(60):
            asked += 1
            yield Path(str(number))

    for given, film in enumerate(read_inputs(paths(), RULES, False, 4, 5)):
        assert film.error == str(given)
        assert asked <= given + 6
    assert given == 59


@pytest.mark.usefixtures("_slow")
def test_who_goes_away_leaves_no_work_behind() -> None:
    reading = read_inputs((Path(str(number)) for number in range(10_000)), RULES, False, 2, 1_000)
    assert next(reading).error == "0"
    started = time.perf_counter()
    reading.close()
    assert time.perf_counter() - started < 1  # of 1,000 that wait none is read


def test_a_copy_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    Image.linear_gradient("L").resize((3000, 1500)).save(path)
    plain, shown = (next(iter(read_inputs([path], RULES, show, 1, 1))) for show in (False, True))
    assert plain.shown is None
    assert shown.shown is not None
    assert shown.shown.size == (1024, 512)
    assert plain.square is not None
    assert (plain.square == shown.square).all()
    assert plain.square.shape == (1, 32, 32)
