import errno
import logging
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from pneumo.errors import ConfigError
from pneumo.models.checkpoint_reader import DIGEST, read_checkpoint
from pneumo.training.checkpoints import write_checkpoint

SETTINGS = {
    "architecture": "pneumo/xraychestnet",
    "classes": ["NORMAL", "PNEUMONIA"],
    "image_size": 32,
    "crop_pct": 1,
    "freeze": False,
    "head_path": None,
    "threshold": 0.5,
    "temperature": 1.0,
    "margin": None,
    "flip_test": False,
}


def content() -> dict[str, Any]:
    return {
        "state_dict": {"w": torch.arange(300.0)},
        "hyper_parameters": dict(SETTINGS),
        "outliers": {"mean": torch.ones(3), "scale": torch.ones(3), "components": torch.ones(2, 3)},
        "validation": {"index": torch.arange(3), "logits": torch.ones(3, 2)},
        "metrics": {"val/loss": 0.5},
        "config": {"seed": 0},
        "epoch": 1,
        "callbacks": {"History": {"epochs": [{"epoch": 1.0}]}},
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checkpoint(content(), tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


@pytest.mark.parametrize("verified", [True, False])
def test_flipped_bits_are_detected_or_harmless(verified: bool, path: Path) -> None:
    if not verified:
        torch.save(content(), path)
    intact, generator, messages_valid = path.read_bytes(), random.Random(0), []
    for number in range(100):
        damaged = bytearray(intact)
        damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        other = path.with_name(f"{number}.ckpt")
        other.write_bytes(damaged)
        try:
            found = read_checkpoint(other)
        except ConfigError as error:
            messages_valid.append(str(error).startswith(str(other)) and "\n" not in str(error))
        else:
            assert found.pop(DIGEST, None) is not None or not verified
            assert repr(found) == repr(content())
    assert all(messages_valid)
    assert len(messages_valid) > 50


@pytest.mark.parametrize("key", ["state_dict", "hyper_parameters", "outliers", "callbacks"])
def test_altered_content_is_rejected(key: str, path: Path) -> None:
    altered = torch.load(path, weights_only=True)
    altered["state_dict"]["w"][7] += 1 if key == "state_dict" else 0
    altered["outliers"]["scale"][0] *= 1 - 1e-7 * (key == "outliers")
    altered["hyper_parameters"]["threshold"] += 0.25 * (key == "hyper_parameters")
    altered["callbacks"]["History"]["epochs"][0]["epoch"] += key == "callbacks"
    torch.save(altered, path)
    with pytest.raises(ConfigError, match=r"best\.ckpt .* SHA-256"):
        read_checkpoint(path)


def test_changed_files_are_verified_again(path: Path) -> None:
    stored = read_checkpoint(path)
    stored["hyper_parameters"]["threshold"] = 0.25
    write_checkpoint(stored, path)
    assert read_checkpoint(path)["hyper_parameters"]["threshold"] == 0.25
    altered = torch.load(path, weights_only=True)
    altered["hyper_parameters"]["threshold"] = 0.75
    torch.save(altered, path)
    with pytest.raises(ConfigError, match="SHA-256"):
        read_checkpoint(path)


def test_checkpoints_without_digest_are_loaded_with_one_warning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    early = {**content(), "hyper_parameters": {**SETTINGS, "weights": None}}
    for name in ("crop_pct", "margin", "temperature", "flip_test"):
        del early["hyper_parameters"][name]
    torch.save(early, path)
    with caplog.at_level(logging.WARNING):
        assert repr(read_checkpoint(path)) == repr(early)
        read_checkpoint(path)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "best.ckpt has no SHA-256" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_instantiator", "os.system"),
        ("weights", "pip:a.b"),
        ("weights", "DEFAULT"),
        ("optimizer", None),
        ("threshold", float("nan")),
        ("threshold", 5),
        ("threshold", -1),
        ("threshold", True),
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", float("inf")),
        ("margin", float("inf")),
        ("margin", -0.5),
        ("crop_pct", 0),
        ("crop_pct", 1.5),
        ("image_size", 0),
        ("image_size", 10**6),
        pytest.param("image_size", 10**600, id="image_size-huge"),
        ("image_size", 32.0),
        ("classes", ["A"]),
        ("classes", ["A", "A"]),
        ("classes", ["A", "\x1b[31m"]),
        ("classes", ["A", "B" * 1000]),
        ("classes", "AB"),
        ("architecture", "timm/hf-hub:someone/network"),
        ("architecture", "../x"),
        ("architecture", None),
        ("head_path", "a b"),
        ("freeze", 1),
        ("flip_test", None),
    ],
)
def test_invalid_hyperparameters_are_reported(name: str, value: object, path: Path) -> None:
    broken = content()
    broken["hyper_parameters"][name] = value
    write_checkpoint(broken, path)
    with pytest.raises(ConfigError, match=rf"best\.ckpt .*{name}") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hyper_parameters", None),
        ("hyper_parameters", {1: 2}),
        ("state_dict", []),
        ("state_dict", {"w": 1.0}),
        ("state_dict", {1: torch.ones(1)}),
        ("outliers", {"mean": torch.ones(3)}),
        ("outliers", {**content()["outliers"], "scale": torch.ones(4)}),
        ("outliers", {**content()["outliers"], "mean": torch.full((3,), torch.nan)}),
        ("outliers", {**content()["outliers"], "components": torch.ones(2, 3, device="meta")}),
        ("validation", {"index": torch.arange(3)}),
        ("validation", {"index": torch.arange(2), "logits": torch.ones(3, 2)}),
        ("metrics", {"val/loss": "a"}),
        ("config", [1]),
        ("config", None),
        ("config", {5: 1}),
        ("config", {"data.classes": ["../private", "PNEUMONIA"]}),
        ("config", {"data.classes": ["NORMAL", "/etc"]}),
        ("epoch", -1),
        (DIGEST, 5),
    ],
)
def test_invalid_parts_are_reported(name: str, value: object, path: Path) -> None:
    torch.save({**content(), name: value}, path)
    with pytest.raises(ConfigError, match=rf"best\.ckpt .*({name}|hyperparameter)") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)


def test_archives_larger_than_their_file_are_rejected(path: Path) -> None:
    torch.save({**content(), "zeros": torch.zeros(10**6)}, path)
    with zipfile.ZipFile(path) as stored:
        parts = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    with pytest.raises(ConfigError, match="larger than the file"):
        read_checkpoint(path)


def test_missing_permissions_are_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(ConfigError, match="Permission denied"):
        read_checkpoint(path)
