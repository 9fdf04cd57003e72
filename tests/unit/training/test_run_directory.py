import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.commands import Compose
from helpers.run_files import write_run
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pneumo.config.fingerprints import config_hash
from pneumo.errors import ConfigError
from pneumo.runs.split_files import write_splits
from pneumo.runs.status import EVENTS, write_report
from pneumo.training.components import RunComponents, run_settings
from pneumo.training.run_directory import prepare_directory

OWN = (
    *("csv/metrics.csv", "csv/hparams.yaml", ".trackers.json"),
    *("predictions.csv", "validation.csv", "figures/roc.png", "figures/shift.svg", "projector/films.png"),
    *(
        "projector_config.pbtxt",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        f"events.out.tfevents.1.host.2{EVENTS}",
    ),
)
FOREIGN = (
    "checkpoints/mine.ckpt",
    "csv/mine.csv",
    "figures/mine.png",
    "figures/roc.pdf",
    "projector/mine.tsv",
    "notes.txt",
    "train.py",
)


@pytest.fixture
def cfg(compose_run: Compose) -> DictConfig:
    return compose_run()


@pytest.fixture
def components() -> RunComponents:
    """Return stand-ins for a run's components with only the attributes that the folder requires."""
    data = SimpleNamespace(splits={}, classes=["NORMAL", "PNEUMONIA"], data_hash="abc", extra_columns=None)
    trainer = SimpleNamespace(is_global_zero=True, checkpoint_callbacks=[])
    return RunComponents(data, None, trainer)  # type: ignore[arg-type] # stand-ins


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("content")


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_files_that_pneumo_wrote_are_removed(cfg: DictConfig, components: RunComponents, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert prepare_directory(folder, cfg, components, overwrite=False, resume=False) is None
    first = files(folder)
    touch(folder, *OWN, *FOREIGN)
    write_report(folder / "MODEL_CARD.md", "card")
    write_report(folder / "MODEL_CARD.md", "newer card")
    prepare_directory(folder, cfg, components, overwrite=False, resume=False)
    assert files(folder) == {*first, *FOREIGN}


def test_a_foreign_folder_raises_an_error_and_is_not_changed(
    cfg: DictConfig, components: RunComponents, tmp_path: Path
) -> None:
    for number, name in enumerate(("checkpoints/last.ckpt", "predictions.csv", "MODEL_CARD.md", "figures/roc.png")):
        folder = tmp_path / str(number)
        touch(folder, name, *FOREIGN)
        for overwrite in (False, True, False):  # a failed run does not claim the folder
            with pytest.raises(ConfigError, match=rf"did not write.*: {name}\. .*hydra\.run\.dir=FOLDER"):
                prepare_directory(folder, cfg, components, overwrite, resume=overwrite)
        assert files(folder) == {name, *FOREIGN}


def test_edited_reports_and_event_files_of_other_programs_are_not_removed(
    cfg: DictConfig, components: RunComponents, tmp_path: Path
) -> None:
    for name in ("MODEL_CARD.md", "events.out.tfevents.1.host.2"):
        folder = tmp_path / name
        prepare_directory(folder, cfg, components, overwrite=False, resume=False)
        write_report(folder / "MODEL_CARD.md", "card")
        touch(folder, name)
        with pytest.raises(ConfigError, match=name):
            prepare_directory(folder, cfg, components, overwrite=True, resume=True)
        assert (folder / name).read_text() == "content"


@pytest.mark.parametrize("proof", ["splits.csv", "results.json"])
def test_a_run_of_an_earlier_version_is_replaced(
    proof: str, cfg: DictConfig, components: RunComponents, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    if proof == "splits.csv":
        image = SimpleNamespace(path="test/a.jpeg", label=0, subtype="none", patient="1", site="", size=0, extra=())
        write_splits(folder / "splits.csv", {"test": [image]}, ["NORMAL"])  # type: ignore[list-item] # a stand-in
    else:
        write_run(folder, "xraychestnet", "sgd", 0, 1, config_hash=config_hash(cfg), data_hash="abc")
    touch(folder, *OWN, "MODEL_CARD.md", "report.html", "events.out.tfevents.1.host.2", "figures/mine.png")
    before = files(folder)
    with pytest.raises(ConfigError, match=r"edited since.*: MODEL_CARD\.md"):
        prepare_directory(folder, cfg, components, overwrite=False, resume=False)
    assert files(folder) == before
    (folder / "MODEL_CARD.md").unlink()
    prepare_directory(folder, cfg, components, overwrite=False, resume=False)
    assert files(folder) == {".run.json", "splits.csv", "figures/mine.png"}


@pytest.mark.parametrize("resume", [False, True])
def test_an_unfinished_run_with_other_settings_is_replaced_only_with_overwrite(
    resume: bool, cfg: DictConfig, components: RunComponents, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    prepare_directory(folder, cfg, components, overwrite=False, resume=False)
    (folder / "checkpoints").mkdir()
    settings = run_settings(cfg, components.datamodule)
    for name in ("best", "last"):
        content = {"hyper_parameters": {}, "config": {**settings, "optimizer.lr": 0.5}}
        torch.save(content, folder / "checkpoints" / f"{name}.ckpt")
    before = files(folder)
    with pytest.raises(ConfigError, match=r"unfinished run.*optimizer\.lr=0\.5 \(now .*sweep\.overwrite=true"):
        prepare_directory(folder, cfg, components, overwrite=False, resume=resume)
    assert files(folder) == before
    assert prepare_directory(folder, cfg, components, overwrite=True, resume=resume) is None
    assert files(folder) == {".run.json", "splits.csv"}


def test_a_manifest_cannot_refer_to_files_elsewhere(cfg: DictConfig, components: RunComponents, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    touch(tmp_path, "precious.txt")
    touch(folder, "MODEL_CARD.md")
    hostile = {"reports": {"../precious.txt": ["x"], "MODEL_CARD.md": 5}, "names": ["../precious.txt"]}
    (folder / ".run.json").write_text(json.dumps(hostile))
    with pytest.raises(ConfigError, match=r"MODEL_CARD\.md"):
        prepare_directory(folder, cfg, components, overwrite=True, resume=False)
    assert (tmp_path / "precious.txt").exists()


def test_the_configuration_of_an_earlier_run_is_replaced(
    cfg: DictConfig, components: RunComponents, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    touch(folder, ".hydra/config.yaml")
    prepare_directory(folder, cfg, components, overwrite=False, resume=False)
    assert (folder / ".hydra" / "config.yaml").read_text() == OmegaConf.to_yaml(cfg)
    assert OmegaConf.load(folder / ".hydra" / "overrides.yaml") == HydraConfig.get().overrides.task
