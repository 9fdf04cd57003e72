"""pneumo's sweeper, where Hydra looks for plugins; light to import, since Hydra does so at each start."""

from importlib.util import find_spec
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PneumoSweeper(Sweeper):
    """Runs every combination of the values that are listed, or lets Optuna choose; what has finished stays."""

    def __init__(self, params: dict[str, str]) -> None:
        """Store overrides by their keys that come before those of the command line; an empty one is none."""
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra passes to its sweepers."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:  # noqa: ANN401 (Hydra's signature)
        """Run the sweep."""
        from pneumo.common.text import install_hint
        from pneumo.config.console import user_errors
        from pneumo.errors import ConfigError

        given = [*(f"{key}={value}" for key, value in self.params.items() if value), *arguments]
        assert self.hydra_context is not None  # Hydra calls setup before
        assert self.task_function is not None
        assert self.config is not None
        with user_errors():
            if self.config.sweep.trials is None:
                from pneumo.sweeps.grid import sweep_grid

                sweep_grid(self.hydra_context, self.task_function, self.config, given)
            else:
                if find_spec("optuna") is None:
                    raise ConfigError(
                        f"sweep.trials searches with Optuna, which is not installed: {install_hint('optuna')}."
                    )
                from pneumo.sweeps.search import search

                search(self.hydra_context, self.task_function, self.config, given)
