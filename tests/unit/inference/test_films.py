import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pneumo.inference import inputs
from pneumo.inference.backend import Rules
from pneumo.inference.inputs import Film, read_films

RULES = Rules("timm/x", ("NORMAL", "PNEUMONIA"), 32, 1.0, 0.5, None, False)


@pytest.fixture
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, rules: Rules, show: bool) -> Film:
        time.sleep(0.002 * (7 - int(path.name) % 7))  # the first of a few takes longest
        return Film(path, error=path.name)

    monkeypatch.setattr(inputs, "read_film", read)


@pytest.mark.usefixtures("_slow")
def test_films_come_in_order_and_no_more_than_a_few_are_ahead() -> None:
    asked = 0

    def paths() -> Iterator[Path]:
        nonlocal asked
        for number in range(60):
            asked += 1
            yield Path(str(number))

    for given, film in enumerate(read_films(paths(), RULES, False, 4, 5)):
        assert film.error == str(given)
        assert asked <= given + 6
    assert given == 59


@pytest.mark.usefixtures("_slow")
def test_who_goes_away_leaves_no_work_behind() -> None:
    reading = read_films((Path(str(number)) for number in range(10_000)), RULES, False, 2, 1_000)
    assert next(reading).error == "0"
    started = time.perf_counter()
    reading.close()
    assert time.perf_counter() - started < 1  # of 1,000 that wait none is read


def test_a_copy_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    Image.linear_gradient("L").resize((3000, 1500)).save(path)
    plain, shown = (next(iter(read_films([path], RULES, show, 1, 1))) for show in (False, True))
    assert plain.shown is None
    assert shown.shown is not None
    assert shown.shown.size == (1024, 512)
    assert plain.square is not None
    assert (plain.square == shown.square).all()
    assert plain.square.shape == (1, 32, 32)
