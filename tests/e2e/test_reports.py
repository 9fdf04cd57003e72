"""Reports of whole runs on phantoms."""

import base64
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers.commands import Compose
from helpers.configurations import run_composer
from omegaconf import DictConfig, OmegaConf

from pneumo.cli.commands import model_card, report, report_run
from pneumo.errors import ConfigError
from pneumo.training.run import run


class Run(NamedTuple):
    folder: Path
    cfg: DictConfig
    results: Mapping[str, Any]


def test_model_card_describes_the_run(compose_run: Compose, tmp_path: Path) -> None:
    options = ("model=xraychestnet", "epochs=2", "data.val_fraction=0.3", "loss.label_smoothing=0.05")
    cfg = compose_run("experiment=robust", *options)
    results = run(cfg)
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir()
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")  # as Hydra does
    report([folder], card=True)
    text = (folder / "MODEL_CARD.md").read_text()
    model_card(folder, tmp_path / "cards")
    assert (tmp_path / "cards" / "MODEL_CARD.md").read_text() == text
    assert "Not a medical device" in text
    assert f"| AUROC | {results['test_auroc']:.4f} | {results['test_auroc_ci_low']:.3f} to" in text
    assert "rotation 10, shift 0.06" in text
    assert "Backbone: trained; weights averaged" in text  # from scratch: no warm-up of the head
    assert "no patient (from file names) and no near-duplicate in common" in text
    assert "label smoothing 0.05" in text
    assert "rule `sensitivity` (0.95)" in text
    for countermeasure in (
        "recompressed images at random.",
        "The border is cropped.",
        "Training stretched images at random.",
    ):
        assert countermeasure in text
    assert text.endswith("assessed.\n")
    assert "\n\n\n" not in text
    assert re.search(r"\| test \| 32 \| \d+ \| 13 \| 19 \|", text)
    assert "From validation to test:" in text
    assert not re.search(r"\{\{|\{%|\bNone\b.*\bNone\b", text)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


@pytest.fixture(scope="module")
def subtypes(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Run:
    """A run with three classes; tests must not modify it."""
    folder = tmp_path_factory.mktemp("subtypes")
    options = ("data.task=subtype", "decision.threshold=youden", "model=efficientnet_lite0", "epochs=1", "figures=true")
    with run_composer(folder, phantoms) as compose:
        cfg = compose(*options)
        results = run(cfg)
    (folder / "run" / ".hydra").mkdir()
    OmegaConf.save(cfg, folder / "run" / ".hydra" / "config.yaml")
    return Run(folder / "run", cfg, results)


def test_model_card_of_subtypes_has_no_threshold(subtypes: Run, tmp_path: Path) -> None:
    assert subtypes.results["threshold_rule"] == "likeliest"
    model_card(subtypes.folder, tmp_path)
    text = (tmp_path / "MODEL_CARD.md").read_text()
    assert "Predicted class: the most probable class." in text
    assert "youden" not in text
    assert "Backbone: frozen" in text
    assert "Augmentation: none." in text
    assert "folders of the dataset define the splits" in text
    assert "The border is not cropped." in text


def test_model_card_requires_one_finished_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--model-card requires the folder of one finished run"):
        report([tmp_path, tmp_path], card=True)
    for command in (model_card, report_run):
        with pytest.raises(ConfigError, match=r"contains no results\.json"):
            command(tmp_path)


@pytest.mark.parametrize("classes", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_the_page_of_a_run_is_self_contained(
    classes: int, subtypes: Run, compose_run: Compose, tmp_path: Path, phantoms: Path
) -> None:
    folder = tmp_path / "run"
    if classes == 3:
        shutil.copytree(subtypes.folder, folder)
        cfg, results = subtypes.cfg.copy(), subtypes.results
    else:
        cfg = compose_run("model=xraychestnet", "epochs=1", "figures=true")
        results = run(cfg)
        (folder / ".hydra").mkdir()
        OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    report([folder])
    text = (folder / "report.html").read_text()
    assert "not a medical device" in text
    assert f"{results['test_auroc']:.4f}" in text
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(?!data:|#)\w""", text)  # nothing is fetched
    figures = {path.stem for path in (folder / "figures").glob("*.svg")}
    assert set(re.findall(r'<figure class="chart[^"]*" id="(\w+)"', text)) == figures
    images = re.findall(r"predicted (\w+).*?<br>true class (\w+) · ([^<]+)<", text)
    assert text.count('alt="radiograph with saliency map"') == len(images) > 5
    lines = {Path(line.split(",")[0]).name: line for line in (folder / "predictions.csv").read_text().splitlines()}
    for prediction, truth, name in images:
        assert lines[name].split(",")[1::2][:2] == [truth, prediction]
    assert "None" not in text.partition("Configuration")[0]

    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked" / "chest_xray").symlink_to(phantoms)  # a folder level that archives add and runs resolve
    OmegaConf.set_readonly(cfg, False)
    cfg.data.root = str(tmp_path / "unpacked")
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    report_run(folder, tmp_path / "again")
    assert not (tmp_path / "again" / "leaderboard.html").exists()
    assert (tmp_path / "again" / "report.html").read_text().count('alt="radiograph with saliency map"') == len(images)

    cfg.data.root = str(tmp_path / "gone")
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    report([folder], output=tmp_path / "elsewhere")
    without = (tmp_path / "elsewhere" / "report.html").read_text()
    assert "because test images are missing" in without
    assert "radiograph with saliency map" not in without


@pytest.mark.slow
def test_the_page_of_a_hostile_run_has_no_data_of_this_machine(
    compose_run: Compose, tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PNEUMO_DATA_ROOT", raising=False)
    monkeypatch.setenv("PNEUMO_SECRET", "of-this-machine")
    cfg = compose_run("model=xraychestnet", "epochs=1", "figures=true")
    run(cfg)
    folder, secret = tmp_path / "run", tmp_path / "secret"
    secret.write_text("<svg>of-this-machine</svg>")
    (folder / ".hydra").mkdir()
    config = OmegaConf.to_yaml(cfg).replace(f"root: {cfg.data.root}", "root: /${oc.env:PNEUMO_SECRET}")
    (folder / ".hydra" / "config.yaml").write_text(config)
    (folder / "figures" / "roc.svg").unlink()
    (folder / "figures" / "roc.svg").symlink_to(secret)
    report([folder])
    page = (folder / "report.html").read_text()
    assert "/${oc.env:PNEUMO_SECRET}" in page
    assert "of-this-machine" not in page
    assert base64.b64encode(secret.read_bytes()).decode() not in page

    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    (folder / "splits.csv").unlink()
    predictions = (folder / "predictions.csv").read_text()
    for elsewhere in (f"{phantoms}/test/", f"../{phantoms.name}/test/"):  # treated as private files
        (folder / "predictions.csv").write_text(predictions.replace("\ntest/", f"\n{elsewhere}"))
        report([folder])
        page = (folder / "report.html").read_text()
        assert "images are not in" in page
        assert 'alt="radiograph"' not in page
