import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.data_modules import open_data
from PIL import Image

from pneumo.common.array_cache import Recipe, find_or_build
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.image_notes import ImageNotes, itemize, summarize

DARK = "12-bit values in a 16-bit file look too dark: multiply them by 16 and save the file again"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with 12-bit values in 16-bit files: two training images and one test image."""
    root = tmp_path_factory.mktemp("planted")
    for split, counts in {"train": (6, 6), "val": (2, 2), "test": (3, 3)}.items():
        for name, count in zip(("NORMAL", "PNEUMONIA"), counts, strict=True):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                values = np.random.default_rng([len(split), count, number]).integers(0, 256, (40, 40), np.uint8)
                deep = (split, name, number) in {
                    ("train", "NORMAL", 0),
                    ("train", "NORMAL", 5),
                    ("test", "PNEUMONIA", 1),
                }
                pixels = values * np.uint16(16) if deep else values
                Image.fromarray(pixels).save(root / split / name / f"person{number}_virus_{number}.png")
    return root


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return messages


def opened(root: Path, folder: Path, **options: object) -> ChestXrayDataModule:
    data = open_data(root, **{"cache": True, "cache_dir": str(folder), **options})
    data.open_images()
    return data


ALL = (
    "3 images are doubtful: " + DARK + " (3 images: test/PNEUMONIA/person1_virus_1.png, "
    "train/NORMAL/person0_virus_0.png, train/NORMAL/person5_virus_5.png). `pneumo audit` lists all such images."
)


@pytest.mark.parametrize("workers", [0, 2])
def test_doubtful_images_are_reported_once_per_run_with_a_cold_or_warm_cache(
    workers: int, planted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in ("cold", "warm"):
        data = opened(planted, tmp_path, num_workers=workers)
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
            assert all(set(batch) == {"input", "label", "index"} for batch in loader)
        data.teardown("test")
        assert warnings(caplog) == [ALL]


def test_images_reported_by_the_duplicate_search_are_not_reported_again(
    planted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in ("cold", "warm"):
        opened(planted, tmp_path, split="patient", val_fraction=0.5)
        assert warnings(caplog) == [ALL]


@pytest.mark.parametrize("workers", [0, 2])
def test_without_a_cache_each_pass_reports_only_new_images(
    workers: int, planted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = open_data(planted, num_workers=workers)
    for _ in range(2):
        for batch in (*data.train_dataloader(), *data.val_dataloader()):
            assert set(batch) == {"input", "label", "index"}
    first = warnings(caplog)
    list(data.test_dataloader())
    second = warnings(caplog)
    assert [text.partition(":")[0] for text in first + second] == ["2 images are doubtful", "1 image is doubtful"]
    assert "train/NORMAL/person0_virus_0.png" in first[0]
    assert "test/PNEUMONIA/person1_virus_1.png" in second[0]


def test_an_interrupted_pass_reports_its_images_at_teardown(planted: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = open_data(planted, batch_size=10)
    next(iter(data.train_dataloader()))
    assert warnings(caplog) == []
    data.teardown("fit")
    assert len(warnings(caplog)) == 1


def test_cached_features_keep_the_notes_on_their_images(
    planted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = Recipe("features", {}, (22, 2), "float32", "Computing")

    def run(cached: bool) -> None:
        data = open_data(planted, cache=cached, cache_dir=str(tmp_path / str(cached)))

        def blocks(start: int) -> Iterator[np.ndarray]:
            data.open_images()
            for block in data.image_blocks(range(start, 22), 4):
                yield block.flatten(1)[:, :2].numpy()

        data.use_features(find_or_build(data.cache_dir, recipe, blocks, data.notes.found))

    for cached in (True, False):
        for _ in ("cold", "warm"):
            run(cached)
            assert warnings(caplog) == [ALL]


def test_notes_that_differ_only_in_parentheses_are_counted_together() -> None:
    few = {f"{number}.png": [f"low contrast (grey values 0 to {number} of 255)"] for number in range(1, 6)}
    assert summarize(few) == ["low contrast (5 images: 1.png, 2.png, 3.png and 2 more)"]
    assert summarize({"a": ["x (1)"], "b": ["y"], "c": ["y"]}) == ["y (2 images: b, c)", "x (1) (1 image: a)"]


def test_each_kind_of_note_has_its_own_line(caplog: pytest.LogCaptureFixture) -> None:
    notes = ImageNotes()
    notes.add("a.png", ["x", "y"])
    notes.report()
    assert warnings(caplog) == [
        "1 image is doubtful:\n- x (1 image: a.png)\n- y (1 image: a.png)\n`pneumo audit` lists all such images."
    ]
    assert itemize("One:", ["x"]) == "One: x."
    assert itemize("Two:", ["x", "y"]) == "Two:\n- x\n- y"


def test_clean_data_produce_no_warning(phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened(phantoms, tmp_path)
    notes = ImageNotes()
    notes.report()
    assert [text for text in warnings(caplog) if "contains phantoms" not in text] == []
