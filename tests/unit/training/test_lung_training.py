import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from pneumo.data.cache_inventory import describe_contents, list_entries, remove
from pneumo.data.lung_phantoms import draw_lung_phantom
from pneumo.models.lung_locator import LungLocator
from pneumo.training import lung_training
from pneumo.training.lung_training import LungTraining, load_locator, train_locator

TINY = LungTraining(phantoms=8, steps=3, batch_size=4)


def states_are_equal(first: LungLocator, second: LungLocator) -> bool:
    weights = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(torch.equal(a, b) for (name, a), (_, b) in weights if not name.endswith("num_batches_tracked"))


def test_equal_settings_give_identical_weights_regardless_of_threads_and_random_state() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        torch.manual_seed(1)
        first = train_locator(TINY)
        torch.set_num_threads(2)
        torch.manual_seed(2)
        before = torch.get_rng_state()
        with torch.no_grad():
            second = train_locator(TINY)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert states_are_equal(first, second)
    assert not states_are_equal(first, train_locator(LungTraining(phantoms=8, steps=3, batch_size=4, seed=1)))
    assert not any(module.training for module in first.network.modules())


def test_the_second_call_loads_the_weights_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load_locator(tmp_path, TINY)
    assert not states_are_equal(trained, LungLocator())

    def fail(settings: LungTraining) -> LungLocator:
        raise AssertionError("trained again")

    monkeypatch.setattr(lung_training, "train_locator", fail)
    loaded = load_locator(tmp_path, TINY)
    assert states_are_equal(loaded, trained)
    images = torch.randint(0, 256, (2, 1, 70, 70), dtype=torch.uint8)
    assert torch.equal(loaded(images), trained(images))
    with pytest.raises(AssertionError, match="trained again"):
        load_locator(tmp_path, LungTraining(phantoms=8, steps=4, batch_size=4))


def test_progress_is_logged_and_the_entry_can_be_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load_locator(tmp_path, TINY)
    assert "Drawing phantoms of lungs: 8" in caplog.messages
    assert "Training the lung locator: 3" in caplog.messages
    (entry,) = list_entries(tmp_path)
    assert (entry.kind, entry.complete) == ("locators", True)
    assert describe_contents(entry) == "lung locator, trained on 8 phantoms"
    assert entry.bytes < 1.2e6
    assert remove(entry)
    assert list_entries(tmp_path) == []


def test_a_damaged_entry_is_trained_again(tmp_path: Path) -> None:
    trained = load_locator(tmp_path, TINY)
    (entry,) = list_entries(tmp_path)
    (entry.folder / "array.npy").write_bytes(b"\x93NUMPY")
    assert states_are_equal(load_locator(tmp_path, TINY), trained)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_trained_locator_finds_the_lungs_of_phantoms_that_it_has_not_seen(tmp_path: Path) -> None:
    locator = load_locator(tmp_path)
    phantoms = [draw_lung_phantom(10**6, number) for number in range(120) if number % 4 != 3]  # only varied ones
    images = torch.from_numpy(np.stack([phantom.image for phantom in phantoms]))[:, None]
    hulls = np.stack([phantom.hull for phantom in phantoms])
    predicted = locator(images).numpy() > 0.5
    overlap, total = (predicted & hulls).sum((1, 2)), predicted.sum((1, 2)) + hulls.sum((1, 2))
    dice = 2 * overlap / total
    assert dice.mean() >= 0.93
    assert np.median(dice) >= 0.95
    boxes, confidence = locator.locate(images)
    assert np.quantile(confidence, 0.05) > 0.85
    for number, hull in enumerate(hulls):
        if dice[number] > 0.95:
            rows, columns = np.flatnonzero(hull.any(1)), np.flatnonzero(hull.any(0))
            edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 64
            assert np.abs(boxes[number].numpy() - edges).max() < 0.15
