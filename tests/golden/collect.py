"""Collectors of golden values: each works in an empty folder and returns plain values for JSON."""

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from golden.checkpoint_json import from_json
from golden.images import tested_images, write_images
from golden.interface import QUICK, ROOT, compose_config, describe_commands, hashes, run_command, run_script
from omegaconf import DictConfig, OmegaConf

EARLIER = Path(__file__).parent / "earlier"  # written by version 0.1.0; must not be regenerated
COSTS = {"train_seconds", "total_seconds", "samples_per_second", "peak_memory_bytes", "cache_seconds"}
VERSIONS = {"git_commit", "torch_version", "pneumo_version"}
RUNS = {
    "xraychestnet": ("optimizer=adam", "data.image_size=64", "trainer.max_epochs=2", "figures=true"),
    "frozen": ("model=efficientnet_lite0", "optimizer=adagrad", "data.image_size=64", "trainer.max_epochs=3"),
    "robust": ("model=efficientnet_lite0", "experiment=robust", "data.image_size=64", "trainer.max_epochs=1",
               "trainer.limit_train_batches=3", "data.val_fraction=0.3"),
    "subtype": ("model=efficientnet_lite0", "optimizer=adam", "data.task=subtype", "data.split=patient",
                "data.val_fraction=0.4", "data.image_size=64", "trainer.max_epochs=3"),
    "fold": ("model=efficientnet_lite0", "optimizer=adam", "data.split=kfold", "data.fold=1", "data.image_size=64",
             "trainer.max_epochs=3"),
}  # fmt: skip
PHANTOMS = ("data=synthetic", "data.train=40", "data.val=8", "data.test=16")
SWEEP = ("model=xraychestnet", "optimizer=sgd,adam", "data.image_size=32", "trainer.max_epochs=1", "sweep.name=old")
RESUMED = ("optimizer=adam", "data.image_size=32", "trainer.max_epochs=3")


def names(group: str) -> list[str]:
    """Return the names of the options of a config group."""
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def few_pairs() -> list[str]:
    """Return each model, each optimizer and each experiment, without combinations."""
    groups = ("model", "optimizer", "experiment")
    return [f"{group}={name}" for group in groups for name in names(group)]


def all_pairs() -> list[str]:
    """Return all combinations of models, optimizers and experiments, and each option of other groups."""
    models, optimizers, experiments = map(names, ("model", "optimizer", "experiment"))
    product = [f"model={m} optimizer={o} experiment={e}" for m in models for o in optimizers for e in experiments]
    groups = ("data", "augment", "scheduler", "callbacks", "logger", "trainer")
    single = [f"{group}={name}" for group in groups for name in names(group)]
    return [*product, *single, "data.task=subtype", "data.split=kfold data.fold=3 seed=2", "model.weights=null"]


def hash_choices(choices: list[str]) -> dict[str, list[str]]:
    """Return `config_hash` and `settings_hash` by overrides."""
    return {choice: hashes(compose_config(*choice.split())) for choice in choices}


def collect_settings(_: Path) -> dict[str, Any]:
    """Return the settings of train.py and sweep.py, and those that each option changes; class names are omitted."""
    found: dict[str, Any] = {config: _flatten(compose_config(config=config)) for config in ("train", "sweep")}
    for group in ("model", "optimizer", "experiment", "data", "augment", "scheduler", "callbacks", "trainer"):
        for name in names(group):
            chosen = _flatten(compose_config(f"{group}={name}"))
            found[f"{group}={name}"] = {k: v for k, v in chosen.items() if found["train"].get(k, chosen) != v}
    chosen = _flatten(compose_config("launcher=joblib", config="sweep"))
    found["launcher=joblib"] = {key: value for key, value in chosen.items() if found["sweep"].get(key, chosen) != value}
    return found


def _flatten(cfg: DictConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def visit(value: Any, path: str) -> None:  # noqa: ANN401 (any YAML value)
        if isinstance(value, dict):
            for key, item in value.items():
                visit(item, f"{path}.{key}" if path else str(key))
        elif path != "paths.fresh_dir" and not path.endswith("._target_"):  # the first contains the time
            found[path] = value

    visit(OmegaConf.to_container(cfg, resolve=True), "")
    return found


def collect_commands(_: Path) -> dict[str, list[str]]:
    """Return the flags of each command."""
    return describe_commands()


def collect_runs(folder: Path) -> dict[str, Any]:
    """Run all configurations in `RUNS` and describe the runs."""
    root = write_images(folder / "images")
    found = {}
    for name, overrides in RUNS.items():
        data = PHANTOMS if name == "xraychestnet" else (f"data.root={root}",)
        _train(folder, name, *data, *overrides)
        found[name] = describe_run(folder / name)
    return found


def _train(folder: Path, name: str, *overrides: str) -> None:
    folders = (f"paths.output_dir={folder / 'outputs'}", f"hydra.run.dir={folder / name}")
    assert run_script("train.py", *folders, *QUICK, *overrides) == 0, f"{name} has failed"


def describe_run(folder: Path) -> dict[str, Any]:
    """Return a run's results, predictions, splits, files, TensorBoard tags and the keys of its checkpoints."""
    return {
        "results": read_results(folder),
        **{name: read_columns(folder / f"{name}.csv") for name in ("predictions", "validation")},
        "splits": [read_head(folder / "splits.csv"), hashlib.sha256((folder / "splits.csv").read_bytes()).hexdigest()],
        "files": list_files(folder),
        "tags": _tags(folder),
        "manifest": sorted(json.loads((folder / ".run.json").read_text())),
        "checkpoints": {name: _outline(folder / "checkpoints" / f"{name}.ckpt") for name in ("best", "last")},
    }


def read_results(folder: Path) -> dict[str, Any]:
    """Return results.json without costs and versions."""
    results = json.loads((folder / "results.json").read_text())
    assert results.keys() >= COSTS | VERSIONS
    return {name: _rounded(value) for name, value in results.items() if name not in COSTS | VERSIONS}


def _rounded(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    return round(value, 7) if isinstance(value, float) else value


def read_columns(path: Path) -> dict[str, list[Any]]:
    """Return the columns of a CSV file, with decimal numbers as floats."""
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = list(csv.reader(file))
    columns: dict[str, list[Any]] = {"columns": list(head)}
    for name, cells in zip(head, zip(*rows, strict=True), strict=True):
        columns[name] = [
            round(float(cell), 7) if re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", cell) else cell for cell in cells
        ]
    return columns


def read_head(path: Path) -> list[str]:
    """Return the column names of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file))


def list_files(folder: Path) -> list[str]:
    """Return the files in a folder and its subfolders; all event files have one name."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return sorted({re.sub(r"(events\.out\.tfevents)\..*?(\.pneumo)?$", r"\1\2", name) for name in found})


def _tags(folder: Path) -> list[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = {kind: found for kind, found in events.Tags().items() if isinstance(found, list)}
    return sorted(f"{kind} {tag}" for kind, found in tags.items() for tag in found)


def _outline(path: Path) -> list[str]:
    """Return the dotted keys of a checkpoint, without Lightning's loops and the backbone's weights."""
    import torch

    content = torch.load(path, weights_only=True)
    found = [*content]
    for part in ("hyper_parameters", "callbacks", "validation", "outliers", "averaging_state", "state_dict"):
        found += [f"{part}.{key}" for key in content.get(part, {}) if not key.startswith("backbone.network.")]
    return found


def collect_predictions(folder: Path) -> dict[str, Any]:
    """Return the predictions of a checkpoint of an earlier version, with and without its digest."""
    import torch

    images = tested_images(write_images(folder / "images"))
    found = {}
    for name in ("with_digest", "without_digest"):
        content = restore_checkpoint("best")
        if name == "without_digest":
            del content["content_sha256"]
        torch.save(content, folder / f"{name}.ckpt")
        status, _ = run_command("predict", str(folder / f"{name}.ckpt"), *images, "--csv", str(folder / f"{name}.csv"))
        assert status == 0
        found[name] = read_columns(folder / f"{name}.csv")
        found[name]["path"] = [path.rpartition("/")[2] for path in found[name]["path"]]
    return found


def restore_checkpoint(name: str) -> dict[str, Any]:
    """Return the content of a checkpoint of an earlier version, with fixed numbers as weights."""
    content = from_json(json.loads((EARLIER / f"{name}.ckpt.json").read_text(encoding="utf-8")))
    assert isinstance(content, dict)
    return content


def collect_resumed(folder: Path) -> dict[str, Any]:
    """Resume a run that an earlier version stopped after two of three epochs; return its results."""
    import torch

    root, run = write_images(folder / "images"), folder / "stopped"
    copy_earlier("stopped", run)
    (run / "checkpoints").mkdir()
    for name in ("best", "last"):
        torch.save(restore_checkpoint(f"stopped_{name}"), run / "checkpoints" / f"{name}.ckpt")
    last = run / "checkpoints" / "last.ckpt"
    folders = (f"data.root={root}", f"paths.output_dir={folder / 'outputs'}", f"ckpt_path={last}")
    assert run_script("train.py", *folders, *QUICK, *RESUMED) == 0
    history = torch.load(last, weights_only=True)["callbacks"]["History"]["epochs"]
    found = {"results": read_results(run), "history": history}
    return {**found, **{name: read_columns(run / f"{name}.csv") for name in ("predictions", "validation")}}


def copy_earlier(name: str, folder: Path) -> None:
    """Copy a folder of an earlier version."""
    shutil.copytree(EARLIER / name, folder)
