"""Interface between the golden tests and pneumo: when code moves, only the imports of this module change."""

import contextlib
import io
import logging
import os
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import typer
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pneumo import cli
from pneumo.config.fingerprints import config_hash, settings_hash
from pneumo.config.resolvers import register_resolvers
from pneumo.metrics.summary import summarise
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.results import Results, read_finished
from pneumo.runs.split_files import read_splits

ROOT = Path(__file__).parents[2]
QUICK = ("data.batch_size=8", "data.num_workers=0", "trainer=cpu", "figures=false")


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[None]:
    """Set the command line and working folder of a command; restore global state on exit."""
    argv, cwd, root = sys.argv, os.getcwd(), logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    sys.argv = list(arguments)
    os.chdir(ROOT)
    try:
        yield
    finally:
        sys.argv = argv
        os.chdir(cwd)
        for handler in set(root.handlers).difference(handlers):  # added by Hydra
            handler.close()
        root.handlers = handlers
        root.setLevel(level)
        logging.getLogger("pneumo").setLevel(logging.NOTSET)
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
        torch.set_float32_matmul_precision("highest")


def _status(stop: SystemExit) -> int:
    return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def run_script(name: str, *arguments: str) -> int:
    """Run train.py or sweep.py in this process and return its exit status."""
    with _process(name, *arguments):
        try:
            runpy.run_path(name, run_name="__main__")
        except SystemExit as stop:
            return _status(stop)
    return 0


def run_command(*arguments: str) -> tuple[int, str]:
    """Run `pneumo` in this process and return its exit status and output."""
    output = io.StringIO()
    with _process("pneumo", *arguments), contextlib.redirect_stdout(output):
        try:
            cli.main()
        except SystemExit as stop:
            return _status(stop), output.getvalue()
    return 0, output.getvalue()


def compose_config(*overrides: str, config: str = "train") -> DictConfig:
    """Compose a configuration with fixed folders, as Hydra passes it to train.py or sweep.py."""
    fixed = ("paths.output_dir=outputs", "paths.run_dir=outputs/run", "trainer.accelerator=cpu")
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(config, overrides=[*fixed, *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def hashes(cfg: DictConfig) -> list[str]:
    """Return a configuration's `config_hash` and `settings_hash`."""
    return [config_hash(cfg), settings_hash(cfg)]


def recompute_metrics(folder: Path) -> tuple[Results, Results]:
    """Return the results of a run as recorded, and as recomputed from its predictions."""
    results = read_finished(folder)
    subtypes = {row["path"]: row["subtype"] for row in read_splits(folder)}
    predictions = read_predictions(folder, results)
    predictions = replace(predictions, subtypes=tuple(subtypes[path] for path in predictions.paths))
    return results, {**summarise(predictions)}


def describe_commands() -> dict[str, list[str]]:
    """Return the arguments and flags of each command and subcommand of `pneumo`."""
    found: dict[str, list[str]] = {}

    def visit(command: Any, path: str) -> None:  # noqa: ANN401 (click's Command or Group, which typer may vendor)
        found[path] = sorted(
            f"{option}{' required' if parameter.required else ''} {parameter.default!r}"
            for parameter in command.params
            for option in parameter.opts
        )
        for name, child in getattr(command, "commands", {}).items():
            visit(child, f"{path} {name}")

    visit(typer.main.get_command(cli.app), "pneumo")
    return found
