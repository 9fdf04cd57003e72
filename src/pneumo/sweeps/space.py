"""Search spaces: the values that a search may try."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import IntervalSweep, Override
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from pneumo.errors import ConfigError
from pneumo.sweeps.grid import check_values, parse_overrides


@dataclass(frozen=True)
class Space:
    """What a search tries.

    Attributes:
        searched: Distributions by the keys that are searched.
        fixed: Overrides that all trials share.
    """

    searched: dict[str, BaseDistribution]
    fixed: list[str]

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a trial with these values, which must lie inside the space.

        Choices are in Hydra's grammar already, as the command line declared them.
        """
        return [*self.fixed, *(f"{key}={value}" for key, value in values.items())]

    def probes(self) -> list[list[str]]:
        """Return overrides that try each end of an interval and each choice."""
        ends = {key: _ends(distribution) for key, distribution in self.searched.items()}
        most = max(map(len, ends.values()))
        return [self.overrides({key: of[min(i, len(of) - 1)] for key, of in ends.items()}) for i in range(most)]

    def find_fault(
        self, values: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], complete: bool
    ) -> str | None:
        """Return what keeps a trial's values from being values of this space; None if nothing does.

        Args:
            values: By keys.
            distributions: From which they were drawn, by keys.
            complete: Whether no value may be missing.
        """
        for key, value in values.items():
            if key not in self.searched:
                return f"the parameter {key!r}, which this search does not have"
            if distributions.get(key) != self.searched[key]:
                return f"{key} drawn from {distributions.get(key)}, which is not what this search declares"
            if not _contains(self.searched[key], value):
                return f"{key}={value!r}, which lies outside of {self.searched[key]}"
        missing = [key for key in self.searched if key not in values]
        return f"no value of {missing[0]}" if missing and complete else None


def read_space(loader: ConfigLoader, overrides: Sequence[str]) -> Space:
    """Read the search space and the fixed overrides of a command line."""
    parsed = parse_overrides(loader, overrides)
    check_values(parsed, combined=False)
    searched = {key: _distribution(override) for key, override in parsed.items() if override.is_sweep_override()}
    if not searched:
        raise ConfigError("Nothing is to be searched: name an interval, such as 'optimizer.lr=interval(1e-4,1e-1)'.")
    fixed = [f"{key}={override.get_value_element_as_str()}" for key, override in parsed.items() if key not in searched]
    return Space(searched, fixed)


def _distribution(override: Override) -> BaseDistribution:
    value = override.value()
    if not isinstance(value, IntervalSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    low, high, log = value.start, value.end, "log" in value.tags
    assert low is not None and high is not None  # noqa: PT018
    try:
        if isinstance(low, int) and isinstance(high, int) and "float" not in value.tags:
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{override.input_line} is no interval to search ({error}).") from error


def _contains(distribution: BaseDistribution, value: object) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return isinstance(value, str) and value in distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    kind = int if isinstance(distribution, IntDistribution) else float
    return type(value) is kind and math.isfinite(value) and distribution.low <= value <= distribution.high


def _ends(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]
