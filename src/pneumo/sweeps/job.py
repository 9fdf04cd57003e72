"""One job of a sweep, in whatever process and on whatever machine it runs."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import rich
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pneumo.cache import locked
from pneumo.config import config_hash
from pneumo.entry import mistake_behind
from pneumo.errors import ConfigError
from pneumo.evaluation.results import read_results
from pneumo.evaluation.status import Status, read_status, write_status

_log = logging.getLogger(__name__)

SWEEP = "PNEUMO_SWEEP"  # variables that a sweep sets for its jobs: which sweep this is,
PLACE = "PNEUMO_JOB"  # and which of its jobs, such as 3/12


def run_job(cfg: DictConfig) -> None:
    """Run a job: from the start, or from where it was stopped; a failure is written down, and the others go on.

    Args:
        cfg: Composed from conf/sweep.yaml.
    """
    rich.get_console().quiet = cfg.launcher.parallel  # the command tells of its jobs; their logs tell more
    os.chdir(HydraConfig.get().runtime.cwd)  # Ray's workers have another one; relative paths are the user's
    folder = Path(cfg.paths.run_dir)
    status = Status(
        sweep=os.environ.get(SWEEP, ""),
        status="running",
        reason="",
        error="",
        **{name: cfg.choices[name] for name in ("model", "optimizer", "experiment")},
        seed=cfg.seed,
    )
    if cfg.sweep.fail_fast and (failed := _failed_sibling(Path(HydraConfig.get().sweep.dir), status.sweep)):
        _log.warning("%s is not begun, since %s failed and sweep.fail_fast=true.", folder.name, failed)
        return
    # An engine may still be at a job whose sweep was stopped when the next sweep comes to it.
    with locked(folder / "run", f"Running {folder.name}"):
        _run_alone(cfg, folder, status)


def _run_alone(cfg: DictConfig, folder: Path, status: Status) -> None:
    found = read_status(folder)
    if cfg.sweep.overwrite and not (found and found.sweep == status.sweep):  # engines repeat a job whose worker died
        for name in ("results.json", "checkpoints/last.ckpt"):
            (folder / name).unlink(missing_ok=True)
    write_status(folder, status)
    try:
        _log.info("%s %s", os.environ.get(PLACE, ""), folder.name)
        _run(cfg, folder)
    except Exception as error:  # of any kind: one job's failure must not end the others
        mistake = mistake_behind(error)
        reason = " ".join((str(error) if mistake is None else mistake[1]).split())
        name = type(error).__name__ if mistake is None else mistake[0]
        _log.error("FAILED (%s): %s\nThe traceback is in %s.", name, reason, folder / "train.log", exc_info=error)
        write_status(folder, replace(status, status="failed", reason=reason or name, error=name))
    except BaseException:  # a signal's SystemExit, or Ctrl-C
        write_status(folder, replace(status, status="stopped", reason="by a signal"))
        raise
    else:
        write_status(folder, replace(status, status="done"))


def _run(cfg: DictConfig, folder: Path) -> None:
    if results := read_results(folder):
        if results["config_hash"] != config_hash(cfg):
            raise ConfigError(
                f"{folder} holds a finished run of another configuration, which is kept: take another sweep.name, or "
                "sweep.overwrite=true to run the sweep's jobs anew."
            )
        _log.info("It has finished already.")
        return
    from pneumo.training import run

    run(cfg, resume=True, go_on="the same command goes on with it")


def _failed_sibling(sweep: Path, name: str) -> str | None:
    """Give the name of a job of this sweep that has failed."""
    for path in sorted(sweep.rglob("status.json")):
        if (status := read_status(path.parent)) and (status.sweep, status.status) == (name, "failed"):
            return path.parent.name
    return None
