"""Which warnings of Lightning and PyTorch a user need not see."""

import logging
import warnings

from lightning.pytorch.utilities import rank_zero_only

_HARMLESS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # between Lightning 2.6 and newer PyTorch
    "The number of training batches",  # fewer than log_every_n_steps: short runs, whose epochs are logged all the same
    "Checkpoint directory .* exists and is not empty",  # a run that goes on
    "The `srun` command is available",  # a machine of a Slurm cluster, used without Slurm
    "Found .* module.* in eval mode",  # a frozen backbone, which is meant to be
    "The '.*_dataloader' does not have many workers",  # data.num_workers is the user's choice
)


def quieten() -> None:
    """Silence them, and all processes but the first."""
    if getattr(rank_zero_only, "rank", 0) != 0:  # of several processes one tells
        logging.getLogger("pneumo").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # tips, and what the log says already
    for message in _HARMLESS:
        warnings.filterwarnings("ignore", message=message)
