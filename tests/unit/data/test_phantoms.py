import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from helpers.opacities import draw_opacities
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pneumo.common.files import lock_of
from pneumo.common.input_format import InputFormat
from pneumo.data import phantoms
from pneumo.data.anatomy import Finding
from pneumo.data.index import Radiograph, index_radiographs
from pneumo.data.phantoms import draw_radiograph, write_phantoms
from pneumo.data.radiograph import decode
from pneumo.errors import ConfigError, DataError

CLASSES = ("NORMAL", "PNEUMONIA")
NAMES = {
    "NORMAL": re.compile(r"(NORMAL2-)?IM-\d{4}-000[12]\.jpeg"),
    "PNEUMONIA": re.compile(r"person\d+_(bacteria|virus)_\d+\.jpeg"),
}


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def draw(finding: Finding, patient: int = 0, image: int = 0) -> np.ndarray:
    return draw_radiograph(np.random.default_rng([9, patient, 1]), np.random.default_rng([9, image]), finding)


def labels(radiographs: list[Radiograph]) -> np.ndarray:
    return np.asarray([radiograph.label for radiograph in radiographs])


def fail(*_: object) -> np.ndarray:
    raise AssertionError("drawn again")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write enough images for statistics: 360 for training and 240 for testing."""
    root = tmp_path_factory.mktemp("phantoms") / "sample"
    write_phantoms(root, seed=0, train=360, val=0, test=240)
    return root


def test_images_depend_only_on_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("again", 3), ("b", 4)):
        write_phantoms(tmp_path / name, seed=seed, train=6, val=2, test=3)
    first = contents(tmp_path / "a")
    assert contents(tmp_path / "again") == first
    other = contents(tmp_path / "b")
    assert other.keys() == first.keys()
    assert all(other[path] != first[path] for path in first)


@pytest.mark.parametrize("sizes", [(16, 4, 8), (2, 2, 2), (90, 0, 30)])
def test_all_splits_have_the_same_class_proportions(
    tmp_path: Path, sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phantoms, "draw_radiograph", lambda *_: np.zeros((2, 2), np.uint8))
    root = tmp_path / "tree"
    write_phantoms(root, seed=0, train=sizes[0], val=sizes[1], test=sizes[2])
    radiographs = index_radiographs(root, CLASSES)
    paths = [Path(radiograph.path) for radiograph in radiographs]
    assert all(NAMES[path.parent.name].fullmatch(path.name) for path in paths)
    for split, size in zip(("train", "val", "test"), sizes, strict=True):
        counts = Counter(radiograph.label for radiograph in radiographs if radiograph.split == split)
        assert sum(counts.values()) == size
        assert size == 0 or (counts[0] > 0 and abs(counts[1] - 0.6 * size) <= 0.5)
    if sum(sizes) > 100:
        subtypes = Counter(radiograph.subtype for radiograph in radiographs)
        assert subtypes["bacterial"] / (subtypes["bacterial"] + subtypes["viral"]) == pytest.approx(2 / 3, abs=0.03)


def test_each_patient_has_one_finding_and_one_split(sample: Path) -> None:
    patients: dict[str, set[tuple[str, str]]] = {}
    radiographs = index_radiographs(sample, CLASSES)
    for radiograph in radiographs:
        patients.setdefault(radiograph.patient, set()).add((radiograph.split, radiograph.subtype))
    assert all(len(pairs) == 1 for pairs in patients.values())
    assert 0.7 * len(radiographs) < len(patients) < 0.9 * len(radiographs)


def test_files_are_nearly_square_grayscale_jpegs(sample: Path) -> None:
    for path in sample.glob("train/*/*.jpeg"):
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "L")
            assert 160 <= image.width <= 224
            assert 0.99 < image.width / image.height < 1.41


def test_a_complete_tree_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "tree"
    write_phantoms(root, seed=0, train=2, val=2, test=2)
    before = contents(root)
    monkeypatch.setattr(phantoms, "draw_radiograph", fail)
    write_phantoms(root, seed=0, train=2, val=2, test=2)
    assert contents(root) == before


def test_a_different_tree_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write_phantoms(root, seed=0, train=2, val=2, test=2)
    before = contents(root)
    with pytest.raises(DataError, match="Remove it"):
        write_phantoms(root, seed=0, train=4, val=2, test=2)
    assert contents(root) == before


def test_a_failure_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def fail_third(*_: object) -> np.ndarray:
        drawn.append(1)
        if len(drawn) == 3:
            raise RuntimeError("the third")
        return np.zeros((2, 2), np.uint8)

    monkeypatch.setattr(phantoms, "draw_radiograph", fail_third)
    with pytest.raises(RuntimeError, match="the third"):
        write_phantoms(tmp_path / "tree", seed=0, train=2, val=2, test=2)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_second_process_waits_and_does_not_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "tree"

    class LockHeldByOther(FileLock):
        def acquire(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (FileLock's)
            monkeypatch.setattr(phantoms, "lock_of", lock_of)
            write_phantoms(root, seed=0, train=2, val=2, test=2)
            monkeypatch.setattr(phantoms, "draw_radiograph", fail)
            return super().acquire(*args, **kwargs)

    monkeypatch.setattr(phantoms, "lock_of", lambda path: LockHeldByOther(lock_of(path).lock_file))
    write_phantoms(root, seed=0, train=2, val=2, test=2)
    assert len(contents(root)) == 7


@pytest.mark.parametrize("sizes", [(1, 2, 2), (2, 1, 2), (2, 2, 0), (-3, 2, 2)])
def test_a_split_too_small_for_both_classes_is_an_error(tmp_path: Path, sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        write_phantoms(tmp_path / "tree", seed=0, train=sizes[0], val=sizes[1], test=sizes[2])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("finding", ["bacterial", "viral"])
def test_opacities_brighten_only_the_lungs(finding: Finding) -> None:
    for number in range(12):
        healthy, diseased = (draw(kind, number, number).astype(float) for kind in ("none", finding))
        change = diseased - healthy
        height, width = change.shape
        assert change[height // 8 : 3 * height // 4].mean() > 0.5
        assert change.max() > 20
        assert np.count_nonzero(change) < 0.5 * change.size
        assert np.abs(change[:, [0, width // 2, -1]]).max() <= 1


def test_opacity_masks_mark_brighter_regions_of_the_written_images(tmp_path: Path) -> None:
    numbers = {"seed": 3, "train": 8, "val": 2, "test": 8}
    write_phantoms(tmp_path / "tree", **numbers)
    for radiograph in index_radiographs(tmp_path / "tree", CLASSES):
        with Image.open(tmp_path / "tree" / radiograph.path) as image:
            pixels = np.asarray(image, float)
        mask = draw_opacities(radiograph.path, **numbers)
        assert mask.shape == pixels.shape
        assert mask.any() == (radiograph.label == 1)
        if radiograph.subtype == "bacterial":
            assert 0.005 < mask.mean() < 0.2
            assert pixels[mask].mean() > pixels[~mask & (pixels < pixels[mask].mean())].mean() + 20


def test_images_of_one_patient_have_only_the_anatomy_in_common() -> None:
    same, other = [], []
    for number in range(10):
        images = [
            np.asarray(Image.fromarray(draw("none", patient, image)).resize((48, 48)), float).ravel()
            for patient, image in ((number, 2 * number), (number, 2 * number + 1), (number + 50, 2 * number + 1))
        ]
        correlations = np.corrcoef(images)
        same.append(correlations[0, 1])
        other.append(correlations[0, 2])
    assert max(same) < 0.999
    assert np.mean(same) > np.mean(other)


def test_a_linear_model_does_not_classify_phantoms_well(sample: Path) -> None:
    def pixels(split: str) -> tuple[np.ndarray, np.ndarray]:
        radiographs = [image for image in index_radiographs(sample, CLASSES) if image.split == split]
        return np.stack([decode(sample / image.path, InputFormat(32)).ravel() for image in radiographs]), labels(
            radiographs
        )

    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=200)).fit(*pixels("train"))
    assert model.score(*pixels("test")) < 0.8


def test_image_size_and_file_size_do_not_predict_the_class(sample: Path) -> None:
    radiographs = index_radiographs(sample, CLASSES)
    sizes = []
    for radiograph in radiographs:
        with Image.open(sample / radiograph.path) as image:
            sizes.append((*image.size, radiograph.size, radiograph.size / image.width / image.height))
    train = np.asarray([radiograph.split == "train" for radiograph in radiographs])
    features, label = np.asarray(sizes), labels(radiographs)
    model = HistGradientBoostingClassifier(max_depth=3, max_iter=50, random_state=0).fit(features[train], label[train])
    # With 240 images, the AUROC of chance is 0.5 +- 0.04.
    assert abs(roc_auc_score(label[~train], model.predict_proba(features[~train])[:, 1]) - 0.5) < 0.12


@pytest.mark.parametrize("other", ["train/NORMAL/own.png", "train/NORMAL/deeper/own.jpeg", "own.jpg"])
def test_phantoms_are_not_mixed_with_other_images(tmp_path: Path, other: str) -> None:
    root = tmp_path / "tree"
    write_phantoms(root, seed=0, train=2, val=2, test=2)
    (root / other).parent.mkdir(exist_ok=True)
    (root / other).write_bytes(b"some image")
    before = contents(root)
    with pytest.raises(DataError, match="does not contain the requested phantoms"):
        write_phantoms(root, seed=0, train=2, val=2, test=2)
    assert contents(root) == before


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written to .*file/tree.*paths\.cache_dir"):
        write_phantoms(tmp_path / "file" / "tree", seed=0, train=2, val=2, test=2)
