"""How long networks take, measured in turn."""

import time
from collections.abc import Mapping

import numpy as np

from pneumo.prediction.network import Images, Network

ROUNDS = (3, 30)  # at least, at most
_SECONDS = 10.0  # after which no further round begins


def measure_latency(
    networks: Mapping[str, Network], films: Images, batch: int, rounds: int | None = None
) -> dict[str, list[float]]:
    """Measure the seconds that each network takes for a batch, each time.

    Args:
        networks: By name. They take turns, so that whatever else the machine does slows all of them.
        films: Of any number, (N, 1, S, S).
        batch: How many images at once.
        rounds: How often; None: as often as is worth the time.
    """
    images = np.resize(films, (batch, *films.shape[1:]))
    for network in networks.values():
        network.score(images)
    taken: dict[str, list[float]] = {name: [] for name in networks}
    least, most = ROUNDS if rounds is None else (rounds, rounds)
    begun = time.perf_counter()
    for number in range(most):
        if number >= least and time.perf_counter() - begun > _SECONDS:
            break
        for name, network in networks.items():
            start = time.perf_counter()
            network.score(images)
            taken[name].append(time.perf_counter() - start)
    return taken
