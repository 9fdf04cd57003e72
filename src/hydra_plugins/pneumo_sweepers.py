"""pneumo's sweeper as a Hydra plugin, with few imports because Hydra imports plugins at each start."""

from importlib.util import find_spec
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PneumoSweeper(Sweeper):
    """Run every combination of the listed values, or search with Optuna; finished jobs are kept."""

    def __init__(self, params: dict[str, str]) -> None:
        """Initialize with default overrides by key; the command line takes precedence and empty values are ignored."""
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the arguments that Hydra passes to sweepers."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:  # noqa: ANN401 (Hydra's signature)
        """Run the sweep."""
        from pneumo.common.text import install_hint
        from pneumo.config.console import user_errors
        from pneumo.errors import ConfigError

        overrides = [*(f"{key}={value}" for key, value in self.params.items() if value), *arguments]
        assert self.hydra_context is not None  # Hydra calls setup before
        assert self.task_function is not None
        assert self.config is not None
        with user_errors():
            if self.config.sweep.trials is None:
                from pneumo.sweeps.grid import sweep_grid

                sweep_grid(self.hydra_context, self.task_function, self.config, overrides)
            else:
                if find_spec("optuna") is None:
                    raise ConfigError(
                        f"sweep.trials requires Optuna, which is not installed: {install_hint('optuna')}."
                    )
                from pneumo.sweeps.search import search

                search(self.hydra_context, self.task_function, self.config, overrides)
