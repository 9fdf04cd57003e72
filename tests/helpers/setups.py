"""Descriptions of runs for their loggers."""

from collections.abc import Mapping

from pneumo.training.tracking import Setup


def make_setup(overrides: str = "", swept: Mapping[str, str | float] | None = None, yaml: str = "") -> Setup:
    """Return a description with a learning rate of 0.1 and a configuration of 150 settings."""
    columns: dict[str, str | int | float] = {"model": "vgg16", "lr": 0.1, "overrides": overrides}
    config = {f"setting{number}": number for number in range(150)}
    return Setup(columns, swept or {}, {f"group.{name}": value for name, value in config.items()}, config, yaml)
