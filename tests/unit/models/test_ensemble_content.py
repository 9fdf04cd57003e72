import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pneumo.errors import ConfigError
from pneumo.models.checkpoint_reader import DIGEST, read_checkpoint
from pneumo.models.checkpoint_writer import save_checkpoint
from pneumo.models.classifier import Classifier
from pneumo.models.ensemble_content import build_ensemble, drop_training_state

Content = dict[str, Any]
SETTINGS = {"architecture": "pneumo/xraychestnet", "classes": ["NORMAL", "PNEUMONIA"], "image_size": 32}
POINT: Content = {"temperature": 1.0, "intercept": 0.0, "threshold": 0.5, "margin": None}
ADAPTATION: Content = {
    **dict.fromkeys(("data", "date", "pneumo_version", "rule"), "x"),
    **dict.fromkeys(("images", "patients", "positives", "folds"), 1),
    "target": None,
    "before": POINT,
    "after": POINT,
    "metrics": {"before": {}, "after": {}, "change": {}},
}


def member(**changes: object) -> Content:
    parameters = {**SETTINGS, "crop_pct": 0.9, "threshold": 0.4, "margin": 0.2, "flip_test": True, **changes}
    return {
        "state_dict": {"w": torch.ones(3)},
        "hyper_parameters": parameters,
        "config": {"seed": 0, "epochs": 5},
    }


def build(*contents: Content) -> Content:
    return build_ensemble({Path(f"run{index}/checkpoints/best.ckpt"): each for index, each in enumerate(contents)})


def test_threshold_and_margin_are_means_and_common_settings_are_kept() -> None:
    other = member(threshold=0.7, margin=0.4, temperature=2.0)
    other["config"]["seed"] = 1
    found = build(member(), other, member(threshold=0.7))
    assert found["hyper_parameters"] == {
        "classes": ["NORMAL", "PNEUMONIA"],
        "image_size": 32,
        "crop_pct": 0.9,
        "threshold": pytest.approx(0.6, abs=1e-7),
        "margin": pytest.approx(0.8 / 3),
    }
    assert found["config"] == {"epochs": 5}
    assert build(member(), member(margin=None))["hyper_parameters"]["margin"] is None
    assert build(member(aspect="pad"), member(aspect="pad"))["hyper_parameters"]["aspect"] == "pad"


def test_a_missing_setting_equals_its_default() -> None:
    explicit, early = member(crop_pct=1, aspect="squeeze", histogram="none"), member()
    del early["hyper_parameters"]["crop_pct"]
    assert build(explicit, early)["hyper_parameters"]["crop_pct"] == 1


def test_training_states_are_dropped() -> None:
    content = {**member(), "optimizer_states": [torch.ones(9)], "validation": {}, "callbacks": {}, "epoch": 1}
    assert drop_training_state(content).keys() == member().keys()
    assert build(content, member())["members"][0].keys() == {"state_dict", "hyper_parameters"}


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("classes", ["NORMAL", "COVID"], "[NORMAL, COVID]"),
        ("image_size", 64, "64"),
        ("crop_pct", 1.0, "1.0"),
        ("aspect", "pad", "pad"),
        ("histogram", "equalize", "equalize"),
    ],
)
def test_members_with_other_inputs_are_named_with_both_values(name: str, value: object, shown: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(member(), member(**{name: value}))
    expected = {"classes": "[NORMAL, PNEUMONIA]", "image_size": "32", "crop_pct": "0.9", "aspect": "squeeze"}
    text = str(error.value)
    assert f"run1/checkpoints/best.ckpt has {name}={shown}, but run0/checkpoints/best.ckpt has {name}=" in text
    assert f"{name}={expected.get(name, 'none')}." in text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("state_dict"), "no weights"),
        (lambda content: content["hyper_parameters"].pop("architecture"), "architecture"),
        (lambda content: content.update(adaptation=ADAPTATION), "adapted"),
        (lambda content: content.update(members=[]), "ensemble itself"),
    ],
)
def test_other_checkpoints_cannot_be_members(change: Callable[[Content], object], reason: str, tmp_path: Path) -> None:
    altered = member()
    change(altered)
    with pytest.raises(ConfigError, match=rf"run1/checkpoints/best\.ckpt .*{reason}.*adapted"):
        build(member(), altered)
    stored = build(member(), member())
    change(stored["members"][1])
    save_checkpoint(stored, tmp_path / "ensemble.ckpt")
    with pytest.raises(ConfigError, match=rf"ensemble\.ckpt .*member 2.*{reason}"):
        read_checkpoint(tmp_path / "ensemble.ckpt")


@pytest.mark.parametrize("count", [1, 101])
def test_the_number_of_members_is_limited(count: int) -> None:
    with pytest.raises(ConfigError, match=f"not {count}"):
        build(*[member()] * count)


INVALID: list[tuple[str, Callable[[Content], object]]] = [
    ("members", lambda content: content.update(members={})),
    ("members", lambda content: content["members"].pop()),
    ("members", lambda content: content.update(state_dict={})),
    ("member 1", lambda content: content["members"].insert(0, 5)),
    ("member 1.*state_dict", lambda content: content["members"][0].update(state_dict=[])),
    ("member 2.*outliers", lambda content: content["members"][1].update(outliers={})),
    ("member 2.*threshold", lambda content: content["members"][1]["hyper_parameters"].update(threshold=5)),
    ("member 2 has another image_size", lambda content: content["members"][1]["hyper_parameters"].update(image_size=9)),
    ("member 1 has another classes", lambda content: content["hyper_parameters"].update(classes=["A", "B"])),
    ("classes", lambda content: content["hyper_parameters"].pop("classes")),
    ("flip_test", lambda content: content["hyper_parameters"].update(flip_test=True)),
    ("architecture", lambda content: content["hyper_parameters"].update(architecture="timm/x")),
]


@pytest.mark.parametrize(("reason", "change"), INVALID)
def test_invalid_content_is_rejected(reason: str, change: Callable[[Content], object], tmp_path: Path) -> None:
    content = build(member(), member())
    change(content)
    save_checkpoint(content, tmp_path / "ensemble.ckpt")
    with pytest.raises(ConfigError, match=rf"ensemble\.ckpt .*{reason}") as error:
        read_checkpoint(tmp_path / "ensemble.ckpt")
    assert "\n" not in str(error.value)


def test_altered_and_unsigned_files_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "ensemble.ckpt"
    save_checkpoint(build(member(), member()), path)
    stored = read_checkpoint(path)
    for altered in (copy.deepcopy(stored), copy.deepcopy(stored)):
        altered["members"][1]["state_dict"]["w"][0] += 1
        torch.save(altered, path)
        with pytest.raises(ConfigError, match=r"ensemble\.ckpt .*SHA-256"):
            read_checkpoint(path)
    del stored[DIGEST]
    torch.save(stored, path)
    with pytest.raises(ConfigError, match=r"ensemble\.ckpt .*without the SHA-256"):
        read_checkpoint(path)


def test_a_classifier_cannot_be_loaded_from_an_ensemble(tmp_path: Path) -> None:
    save_checkpoint(build(member(), member()), tmp_path / "ensemble.ckpt")
    with pytest.raises(ConfigError, match=r"it is an ensemble, which pneumo\.load_model opens"):
        Classifier.load_from_checkpoint(tmp_path / "ensemble.ckpt")
