"""Weights & Biases logger of a run, offline by default."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pneumo.training.experiment_tracker import Tracker
from pneumo.training.tracking import Setup

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

_STEP = "epoch"


class WandbRunLogger(Tracker):
    """Logger for Weights & Biases: hyperparameters as config, metrics by epoch, figures as images."""

    title, extra = "Weights & Biases", "wandb"

    def __init__(self, run_dir: str, project: str, run_name: str, save_dir: str, mode: str = "offline") -> None:
        """Initialize without starting the run.

        Args:
            run_dir: Run folder, which stores the ID of the run.
            project: Name of the project.
            run_name: Name of the run.
            save_dir: Folder of wandb/, with one folder per run.
            mode: `offline`: write files, to upload with `wandb sync`; `online`: upload during training.
        """
        super().__init__(run_dir, project, run_name)
        self.folder, self.mode = save_dir, mode
        self._run: Run | None = None

    @property
    def address(self) -> str:
        """Return the folder of the run's files or, with mode=online, its web page."""
        if self.mode == "online":
            return "the server" if self._run is None else str(self._run.url)
        return f"{self.folder}/wandb" if self._run is None else str(Path(self._run.dir).parent)

    @property
    def experiment(self) -> "Run":
        """Return the run, for callbacks that log further content."""
        assert self._run is not None, "the run has not started"
        return self._run

    def start(self, run_id: str | None) -> str:
        """Start a run of this process, next to those of earlier jobs of a sweep that failed."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it contacts wandb's authors even offline
        import wandb

        self.errors = (wandb.Error, OSError)
        os.makedirs(self.folder, exist_ok=True)  # else wandb uses the system's temporary folder
        self._run = wandb.init(
            project=self.project,
            name=self.run_name,
            id=run_id,
            dir=self.folder,
            mode=self.mode,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),  # the run's log has the same lines
        )
        self.experiment.define_metric(_STEP)
        self.experiment.define_metric("*", step_metric=_STEP)
        return str(self.experiment.id)

    def send_setup(self, setup: Setup) -> None:
        """Send the configuration; a resumed run may change settings that do not affect results."""
        self.experiment.config.update(setup.nested, allow_val_change=True)

    def send_metrics(self, metrics: Mapping[str, float], epochs: int) -> None:
        """Send scalars."""
        self.experiment.log({**metrics, _STEP: epochs})

    def send_images(self, images: Mapping[str, bytes], epochs: int) -> None:
        """Send PNG files as images."""
        import wandb

        shown = {tag: wandb.Image(Image.open(io.BytesIO(png))) for tag, png in images.items()}
        self.experiment.log({**shown, _STEP: epochs})

    def send_results(self, metrics: Mapping[str, float], epochs: int) -> None:
        """Send the final metrics to the summary."""
        self.experiment.summary.update({**metrics})

    def end(self, failed: bool) -> None:
        """Finish the run, which waits for uploads."""
        self.experiment.finish(exit_code=int(failed))
