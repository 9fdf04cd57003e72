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
    """Create a nested folder and change to its parent."""
    names = (
        "image10.png",
        "image2.png",
        "Image1.jpeg",
        "notes.txt",
        "b/image.dcm",
        "b/c/image",
        "[1].png",
        "empty/x/.hidden",
    )
    for name in (*names, ".hidden/image.png", "__MACOSX/image.png", ".image.png"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "scans"


ALL = ["[1].png", "b/c/image", "b/image.dcm", "Image1.jpeg", "image2.png", "image10.png", "notes.txt"]


def names_of(*inputs: str | Path) -> list[str]:
    return [path.as_posix().removeprefix("scans/") for path in find_inputs(inputs)]


@pytest.mark.usefixtures("scans")
def test_folders_are_searched_recursively_in_natural_order() -> None:
    assert names_of("scans") == names_of("scans/") == names_of(Path("scans")) == ALL


def test_absolute_paths_stay_absolute(scans: Path) -> None:
    assert find_inputs([scans]) == [scans / name for name in ALL]
    assert find_inputs([f"{scans}/image?.png"]) == [scans / "image2.png"]


@pytest.mark.usefixtures("scans")
def test_inputs_keep_their_order_without_duplicates() -> None:
    assert names_of("scans/notes.txt", "scans/b", "scans/b/../notes.txt", "scans") == [
        *("notes.txt", "b/c/image", "b/image.dcm"),
        *(name for name in ALL if name not in ("notes.txt", "b/c/image", "b/image.dcm")),
    ]


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("scans/*.png", ["[1].png", "image2.png", "image10.png"]),
        ("scans/image[0-9].*", ["image2.png"]),
        ("scans/**/image*", ["b/c/image", "b/image.dcm", "image2.png", "image10.png"]),
        ("scans/?", ["b/c/image", "b/image.dcm"]),
        ("scans/[1].png", ["[1].png"]),  # an existing file takes precedence over the pattern
        ("scans/.hidden/*.png", [".hidden/image.png"]),
        ("scans/.image.png", [".image.png"]),
    ],
)
def test_patterns_are_expanded(pattern: str, names: list[str]) -> None:
    assert names_of(pattern) == names


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize("given", ["no.png", "scans/*.bmp", "scans/empty", "", "scans/**x", "scans/\0*"])
def test_an_error_names_the_input_without_matches(given: str) -> None:
    with pytest.raises(ConfigError, match="matches no file") as caught:
        find_inputs(["scans", given])
    assert repr(given) in str(caught.value)


def test_links_are_followed_without_loops(scans: Path) -> None:
    (scans / "b" / "up").symlink_to(scans)
    (scans / "b" / "self").symlink_to(scans / "b")
    (scans / "a").symlink_to(scans / "b")
    assert names_of("scans") == ["[1].png", "a/c/image", "a/image.dcm", *ALL[3:]]
    assert names_of("scans/**/image*")[-2:] == ["image2.png", "image10.png"]


def test_unreadable_files_are_listed(scans: Path) -> None:
    (scans / "lost.png").symlink_to(scans / "gone.png")
    os.mkfifo(scans / "pipe")
    assert {"lost.png", "pipe"} < set(names_of("scans"))
    assert names_of("scans/lost.png") == ["lost.png"]


RULES = Rules("timm/x", ("NORMAL", "PNEUMONIA"), 32, 1.0, 0.5, None, False)


@pytest.fixture
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, rules: Rules, keep_preview: bool, keep_thumbnail: bool) -> InputImage:
        time.sleep(0.002 * (7 - int(path.name) % 7))  # the first of seven files takes longest
        return InputImage(path, error=path.name)

    monkeypatch.setattr(inputs, "read_input", read)


@pytest.mark.usefixtures("_slow")
def test_images_are_read_in_order_with_bounded_prefetching() -> None:
    requested = 0

    def paths() -> Iterator[Path]:
        nonlocal requested
        for index in range(60):
            requested += 1
            yield Path(str(index))

    for index, image in enumerate(read_inputs(paths(), RULES, False, 4, 5)):
        assert image.error == str(index)
        assert requested <= index + 6
    assert index == 59


@pytest.mark.usefixtures("_slow")
def test_closing_the_generator_cancels_pending_reads() -> None:
    images = read_inputs((Path(str(index)) for index in range(10_000)), RULES, False, 2, 1_000)
    assert next(images).error == "0"
    started = time.perf_counter()
    images.close()
    assert time.perf_counter() - started < 1  # none of the 1,000 pending files is read


def test_previews_are_kept_on_request(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.linear_gradient("L").resize((3000, 1500)).save(path)
    without, kept = (next(iter(read_inputs([path], RULES, keep, 1, 1))) for keep in (False, True))
    assert without.preview is None
    assert kept.preview is not None
    assert kept.preview.size == (1024, 512)
    assert without.pixels is not None
    assert (without.pixels == kept.pixels).all()
    assert without.pixels.shape == (1, 32, 32)
