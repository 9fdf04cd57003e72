import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data_modules import OPTIONS, open_data
from helpers.dicom_files import dicom
from torch.utils.data import DistributedSampler

from pneumo.data.datamodule import ChestXrayDataModule, SyntheticDataModule
from pneumo.data.index import data_hash, default_root
from pneumo.data.phantoms import MARKER, write_phantoms
from pneumo.errors import ConfigError, DataError


def test_batches_have_grayscale_uint8_images_with_label_and_index(phantoms: Path) -> None:
    data = open_data(phantoms)
    batch = next(iter(data.test_dataloader()))
    assert batch["input"].shape == (16, 1, 24, 24)
    assert batch["input"].dtype == torch.uint8
    assert batch["label"].tolist() == [data.splits["test"][i].label for i in batch["index"].tolist()]
    assert len(data.train_dataloader()) == 4
    assert len(data.predict_dataloader()) == len(data.test_dataloader()) == 2


def test_predict_batches_are_in_order_and_the_first_test_batch_has_both_classes(phantoms: Path) -> None:
    data = open_data(phantoms)
    in_order, shuffled = (
        [i for batch in loader for i in batch["index"].tolist()]
        for loader in (data.predict_dataloader(), data.test_dataloader())
    )
    assert in_order == sorted(shuffled) == list(range(32))
    assert set(next(iter(data.test_dataloader()))["label"].tolist()) == {0, 1}


def test_without_a_val_folder_patients_are_held_out_with_a_warning(
    phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "data"
    shutil.copytree(phantoms, root, ignore=shutil.ignore_patterns("val"))
    data = open_data(root, val_fraction=0.3)
    assert data.split == "patient"
    assert "no val folder" in caplog.text
    assert data.splits == open_data(root, split="patient", val_fraction=0.3).splits


def test_class_folders_may_be_named_by_numbers(phantoms: Path, tmp_path: Path) -> None:
    for number, name in enumerate(OPTIONS["classes"]):
        for split in ("train", "val", "test"):
            shutil.copytree(phantoms / split / name, tmp_path / split / str(number))
    assert open_data(tmp_path, classes=[0, 1]).classes == ["0", "1"]


def order(data: ChestXrayDataModule, epoch: int) -> list[int]:
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, DistributedSampler)
    loader.sampler.set_epoch(epoch)  # as Lightning does
    return [index for batch in loader for index in batch["index"].tolist()]


def test_the_training_order_depends_only_on_seed_and_epoch(phantoms: Path) -> None:
    data = open_data(phantoms)
    first = order(data, 0)
    assert sorted(first) == list(range(64))
    torch.rand(1)
    assert order(open_data(phantoms, num_workers=2), 0) == first
    assert order(data, 1) != first
    assert order(open_data(phantoms, seed=1), 0) not in (first, order(data, 1))


def test_images_do_not_depend_on_the_number_of_workers(phantoms: Path) -> None:
    single, parallel = (
        torch.cat([batch["input"] for batch in open_data(phantoms, num_workers=n).val_dataloader()]) for n in (0, 2)
    )
    assert torch.equal(single, parallel)


def test_loading_does_not_use_the_global_random_generator(phantoms: Path) -> None:
    data = open_data(phantoms)
    state = torch.get_rng_state()
    list(data.train_dataloader())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_default_root_is_the_environment_variable_unless_data_chest_xray_has_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_root() == Path("data/chest_xray")
    monkeypatch.setenv("PNEUMO_DATA_ROOT", "/elsewhere")
    assert default_root() == Path("/elsewhere")
    (tmp_path / "data/chest_xray").mkdir(parents=True)
    assert default_root() == Path("/elsewhere")
    for folder in ("train", "test"):
        (tmp_path / "data/chest_xray" / folder).mkdir()
    assert default_root() == Path("data/chest_xray")


def test_only_the_default_root_is_downloaded_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads: list[Path] = []
    monkeypatch.setattr("pneumo.data.datamodule.download_chest_xray", downloads.append)
    monkeypatch.chdir(tmp_path)
    ChestXrayDataModule(None, **OPTIONS).prepare_data()
    assert downloads == [Path("data/chest_xray")]
    (tmp_path / "data/chest_xray").mkdir(parents=True)  # empty
    ChestXrayDataModule(None, **OPTIONS).prepare_data()
    assert downloads == 2 * [Path("data/chest_xray")]
    with pytest.raises(DataError, match="does not exist"):
        open_data(tmp_path / "typo")
    assert len(downloads) == 2


def test_unknown_splits_are_rejected_before_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nosuch"):
        ChestXrayDataModule(str(tmp_path), **{**OPTIONS, "split": "nosuch"})


def test_phantoms_are_drawn_into_the_cache(tmp_path: Path) -> None:
    data = SyntheticDataModule(str(tmp_path / "phantoms"), train=20, val=6, test=10, phantom_seed=3, **OPTIONS)
    data.prepare_data()
    data.setup()
    assert [len(part) for part in data.splits.values()] == [20, 6, 10]
    assert data.root.is_relative_to(tmp_path)


def draw_phantoms(root: str | Path | None) -> SyntheticDataModule:
    data = SyntheticDataModule(None if root is None else str(root), train=4, val=2, test=2, phantom_seed=3, **OPTIONS)
    data.prepare_data()
    return data


def test_phantoms_are_not_drawn_in_default_folders_of_real_radiographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PNEUMO_DATA_ROOT", str(tmp_path / "own"))
    for root in (None, "data/chest_xray", tmp_path / "data" / "x" / ".." / "chest_xray" / "chest_xray", "own"):
        with pytest.raises(ConfigError, match=r"data\.root=.* real radiographs"):
            draw_phantoms(root)
    assert not list(tmp_path.rglob("*.jpeg"))
    assert draw_phantoms("drawn").root == Path("drawn")


@pytest.mark.parametrize("marked", [True, False])
def test_phantoms_in_the_default_folder_are_rejected(
    marked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    write_phantoms(tmp_path / "data" / "chest_xray", seed=0, train=4, val=2, test=2)
    if marked:
        next((tmp_path / "data" / "chest_xray" / "val" / "NORMAL").iterdir()).unlink()
    else:
        (tmp_path / "data" / "chest_xray" / MARKER).unlink()  # earlier versions wrote no marker
    with pytest.raises(DataError, match=r"data/chest_xray contains phantoms.*data=synthetic"):
        ChestXrayDataModule(None, **OPTIONS).prepare_data()
    ChestXrayDataModule("data/chest_xray", **OPTIONS).prepare_data()
    assert "data/chest_xray contains phantoms" in caplog.text


def test_dicom_files_of_a_tree_without_patients_in_their_names_use_the_header(phantoms: Path, tmp_path: Path) -> None:
    root = shutil.copytree(phantoms, tmp_path / "data")
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 40)).astype(np.uint16)
    for number, split in enumerate(("train", "train", "val")):
        content = dicom(pixels[number], PatientID="X" if number else "Y")
        (root / split / "NORMAL" / f"scan{number}.dcm").write_bytes(content)
    data = open_data(root, split="patient", val_fraction=0.3)
    patients = {image.path: image.patient for image in data.radiographs if image.path.endswith(".dcm")}
    first, second = patients["train/NORMAL/scan0.dcm"], patients["train/NORMAL/scan1.dcm"]
    third = patients["val/NORMAL/scan2.dcm"]
    assert second == third != first
    assert {image.split for name in ("train", "val") for image in data.splits[name] if image.patient == second} in (
        {"train"},
        {"val"},
    )
    assert data.data_hash == data_hash(data.radiographs)


def test_a_folder_tree_cannot_leave_a_site_out(phantoms: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.split=site requires a table"):
        open_data(phantoms, split="site")
