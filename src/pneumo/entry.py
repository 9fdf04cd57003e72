"""What train.py and sweep.py share: light to import, so that --help and --cfg answer at once."""

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

import pneumo.monitors  # noqa: F401 (registers the resolver that conf/callbacks uses)
from pneumo.errors import PneumoError
from pneumo.escaping import escape_paragraph
from pneumo.failures import disk_error, quiet_threads
from pneumo.quoting import quote_override
from pneumo.streams import guarded_output

_log = logging.getLogger(__name__)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a user's mistake into Hydra's short form of an error: one paragraph, no traceback, status 1.

    A stop by Ctrl-C gets one too, and status 130.
    """
    try:
        with guarded_output(), quiet_threads():
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
        raise CompactHydraException(escape_paragraph(mistake[1])) from None


def mistake_behind(error: BaseException | None) -> tuple[str, str] | None:
    """Return the type and message of a user's mistake that caused an error, however deep; None if there is none."""
    while error is not None:
        if isinstance(error, OSError) and (failure := disk_error(error)) is not None:
            return type(failure).__name__, str(failure)
        if isinstance(error, PneumoError):
            # A DataLoader's worker sends its error as text: the message follows the traceback and the class's name.
            name = type(error).__name__
            return name, str(error).rpartition(f"{name}: ")[2].strip()
        error = error.__cause__
    return None


def describe_stop(last: Path, sweep: bool) -> str:
    """Describe how to continue after a stop by a signal, as `describe_resume` does."""
    return f"Stopped by a signal. {describe_resume(last, sweep)}"


def describe_resume(last: Path, sweep: bool) -> str:
    """Describe how to continue a run, perhaps a job of a sweep, from its last checkpoint, which may be missing."""
    if not last.is_file():
        return "No checkpoint was written yet: start again with the same command. Caches are kept."
    if sweep:
        return f"The same command continues from {last}."
    override = quote_override(f"ckpt_path={last}")
    return f"Continue with this run's overrides and its last checkpoint: python train.py {override} ..."


def run_dir(ckpt_path: str | None, fresh: str) -> str:
    """Return a run's folder: a fresh one, or that of the checkpoint which the run goes on from."""
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
    """Return 1 if this machine has an Nvidia GPU, else 0, without a need for PyTorch."""
    return int(any(Path("/dev").glob("nvidia[0-9]*")))


OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)
OmegaConf.register_new_resolver("gpu_here", gpu_here, replace=True)
