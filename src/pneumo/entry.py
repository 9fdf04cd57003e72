"""What train.py and sweep.py share: light to import, so that --help and --cfg answer at once."""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rich
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from pneumo.config import check_config, check_folders, check_sweep, unresolved
from pneumo.constraints import PATH, show
from pneumo.errors import ConfigError, PneumoError
from pneumo.files import escape_output, escape_path
from pneumo.quoting import quote_override

_log = logging.getLogger(__name__)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a user's mistake into Hydra's short form of an error: one paragraph, no traceback, status 1.

    A stop by Ctrl-C gets one too, and status 130.
    """
    escape_output()
    try:
        yield
    except KeyboardInterrupt:
        job = HydraConfig.get()
        last = Path(job.runtime.output_dir) / "checkpoints" / "last.ckpt"
        _log.warning("%s", describe_stop(last, sweep=job.mode == RunMode.MULTIRUN))
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:  # to look for a mistake among its causes: all else goes on as it is
        mistake = mistake_behind(error)
        if mistake is None:
            raise
        raise CompactHydraException(mistake[1]) from None


class CheckOutputFolder(Callback):
    """Check a configuration, and that its output folder can be written, before Hydra makes the folder."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Check the folder of a single run."""
        with _mistakes_end():
            _check_run(config)
            HydraConfig.instance().set_config(config)  # as Hydra does next: the folder's name asks for the choices
            folder = _name_folder(config, "hydra.run.dir")
        _check_writable(folder)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 (Hydra's signature)
        """Check the folder of a sweep."""
        with _mistakes_end():
            HydraConfig.instance().set_config(config)
            check_folders(config)
            if "sweep" in config:
                check_sweep(config)
            folder = _name_folder(config, "hydra.sweep.dir")
        _check_writable(folder)


class ConsoleHandler(logging.Handler):
    """Log to the terminal without tearing a live progress bar, plain lines elsewhere; tracebacks are for files."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        style = "yellow" if record.levelno == logging.WARNING else "red" if record.levelno > logging.WARNING else None
        rich.get_console().print(record.getMessage(), style=style, markup=False, highlight=False, soft_wrap=True)


def mistake_behind(error: BaseException | None) -> tuple[str, str] | None:
    """Give the type and message of a user's mistake that caused an error, however deep; None if there is none."""
    while error is not None:
        if isinstance(error, PneumoError):
            # A DataLoader's worker sends its error as text: the message follows the traceback and the class's name.
            name = type(error).__name__
            return name, str(error).rpartition(f"{name}: ")[2].strip()
        error = error.__cause__
    return None


def describe_stop(last: Path, sweep: bool) -> str:
    """Describe how to continue after a stop by a signal.

    Args:
        last: The run's last checkpoint, which may be missing.
        sweep: Whether the run is a job of a sweep, which finds its own checkpoint.
    """
    if not last.is_file():
        how = "No checkpoint was written yet: start again with the same command. Caches are kept."
    elif sweep:
        how = f"The same command continues from {last}."
    else:
        override = quote_override(f"ckpt_path={last}")
        how = f"Continue with this run's overrides and its last checkpoint: python train.py {override} ..."
    return f"Stopped by a signal. {how}"


def run_dir(ckpt_path: str | None, fresh: str) -> str:
    """Give a run's folder: a fresh one, or that of the checkpoint which the run goes on from."""
    if ckpt_path is None:
        return fresh
    checkpoints = Path(ckpt_path).parent
    return str(checkpoints.parent) if checkpoints.name == "checkpoints" else fresh


def require_launcher(arguments: Sequence[str]) -> None:
    """End with one paragraph if a sweep's launcher is not installed; Hydra's error would not say what is missing."""
    for name, plugin in (("joblib", "joblib"), ("ray", "ray"), ("slurm", "submitit")):
        if f"launcher={name}" in arguments and find_spec(f"hydra_plugins.hydra_{plugin}_launcher") is None:
            raise SystemExit(
                f"launcher={name} needs what is not installed: pip install 'pneumo[{name}]', or, in a checkout, "
                f"pip install -e '.[{name}]'. launcher=local needs nothing."
            )


def gpu_here() -> int:
    """Give 1 if this machine has an Nvidia GPU, else 0, without a need for PyTorch."""
    return int(any(Path("/dev").glob("nvidia[0-9]*")))


OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)
OmegaConf.register_new_resolver("gpu_here", gpu_here, replace=True)


@contextmanager
def _mistakes_end() -> Iterator[None]:
    """End with one paragraph; Hydra swallows a callback's other exceptions."""
    try:
        yield
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None


def _check_run(config: DictConfig) -> None:
    """Check a run's configuration; its folder has no name yet, so another one stands for it."""
    checked = config.copy()
    with read_write(checked.hydra), open_dict(checked.hydra):
        checked.hydra.runtime.output_dir = os.getcwd()
    HydraConfig.instance().set_config(checked)
    check_config(OmegaConf.masked_copy(checked, [str(key) for key in checked if key != "hydra"]))


def _name_folder(config: DictConfig, key: str) -> Path:
    try:
        name = OmegaConf.select(config, key)
    except OmegaConfBaseException as error:
        raise unresolved(error) from error
    if not PATH.holds(name):
        raise ConfigError(f"{key}={show(name)} must be {PATH.describe(key)}.")
    return Path(name)


def _check_writable(folder: Path) -> None:
    if (name := str(folder.absolute())) != escape_path(name):
        raise SystemExit(
            f"The output folder {name} has a name that is not UTF-8, which checkpoints and TensorBoard cannot have: "
            "choose another one with paths.output_dir=FOLDER."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        # Hydra swallows a callback's exceptions, but not this one.
        raise SystemExit(
            f"The output folder {folder} cannot be written ({error.strerror}): choose another one with "
            "paths.output_dir=FOLDER, or mend its permissions or its disk."
        ) from None
