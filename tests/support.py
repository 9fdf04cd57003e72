from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

ROOT = Path(__file__).parents[1]
Compose = Callable[..., DictConfig]
