"""Answers to films, with what to tell beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pneumo.errors import ConfigError
from pneumo.prediction.films import Film, read_films
from pneumo.prediction.network import Network
from pneumo.prediction.rules import Answer

NOTICE = "Not a medical device: for research and teaching, and no diagnosis."
UNCERTAIN = "uncertain"
UNLIKE = "unlike the films of the training: perhaps no frontal chest radiograph"


@dataclass(frozen=True)
class Prediction:
    """What a network says of a file.

    Attributes:
        path: The file's.
        answer: None if it cannot be read.
        notes: From reading it.
        error: Why it cannot be read, as a predicate.
    """

    path: Path
    answer: Answer | None
    notes: tuple[str, ...] = ()
    error: str = ""

    @property
    def remarks(self) -> list[str]:
        """What to take the answer with."""
        return [*(remarks(self.answer) if self.answer else ()), *self.notes]


class Batch(NamedTuple):
    """Predictions of as many files, in their order, and the films."""

    predictions: list[Prediction]
    films: list[Film]


def remarks(answer: Answer) -> list[str]:
    """Put into words what an answer is to be taken with."""
    return [words for words, true in ((UNCERTAIN, answer.uncertain), (UNLIKE, is_unlike(answer))) if true]


def is_unlike(answer: Answer) -> bool:
    """Tell whether a film is too unlike the training images; where that is not known, none is."""
    return answer.unlike > 1


def show_share(share: float) -> str:
    """Give three digits, and no 1.000 or 0.000 to what is neither."""
    return ">0.999" if 0.9995 <= share < 1 else "<0.001" if 0 < share < 0.0005 else f"{share:.3f}"


def answer_films(network: Network, films: Sequence[Film]) -> list[Answer | None]:
    """Answer to films in one pass; to those that could not be read there is no answer.

    Raises:
        ConfigError: The network answers with what is no number.
    """
    squares = [film.square for film in films if film.square is not None]
    if not squares:
        return [None] * len(films)
    probability, unlike = network.score(np.stack(squares))
    if not np.isfinite(probability).all():
        raise ConfigError(
            f"The network {network.rules.name} answers with numbers that are none (NaN): its weights are damaged. Take "
            "another checkpoint."
        )
    # Of a film that is unlike all bounds the score may overflow.
    most = np.finfo(np.float32).max
    answers = iter(network.rules.apply(probability, np.nan_to_num(unlike, nan=most, posinf=most)))
    return [None if film.square is None else next(answers) for film in films]


def predict(network: Network, paths: Sequence[Path], batch_size: int, threads: int, show: bool) -> Iterator[Batch]:
    """Answer to files in order.

    Args:
        network: Whose answers they are.
        paths: The files.
        batch_size: Films that are answered at once.
        threads: That read films beside the network.
        show: Keep copies of films to look at.
    """
    with closing(read_films(paths, network.rules, show, threads, 2 * batch_size)) as films:
        for start in range(0, len(paths), batch_size):
            batch = list(islice(films, batch_size))
            answers = zip(paths[start:], batch, answer_films(network, batch), strict=False)
            yield Batch([Prediction(path, answer, film.notes, film.error) for path, film, answer in answers], batch)
