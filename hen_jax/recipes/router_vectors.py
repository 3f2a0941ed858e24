"""The vectors that a router's head learns from: made by the frozen base, once for each part."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from hen_jax.adapters.router import state_reader
from hen_jax.runs.routed import PartName, RoutedPart
from hen_jax.runs.routing import common_prompt_start
from hen_jax.runs.stage import Job

LEAST_SPREAD = 1e-6


class _Scale(NamedTuple):
    """What brings vectors to mean 0 and spread 1 over those that train."""

    mean: np.ndarray  # [D]
    spread: np.ndarray  # [D]

    def standard(self, vectors: np.ndarray) -> np.ndarray:
        """The vectors on that scale."""
        return (vectors - self.mean) / self.spread

    def unscaled(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The head that says of raw vectors what `kernel` and `bias` say of standardised ones."""
        raw = kernel / self.spread[:, None]
        return raw, bias - self.mean @ raw


def scale_of(vectors: np.ndarray) -> _Scale:
    """Their mean and spread; a dimension that does not vary is left where it is."""
    spread = vectors.std(axis=0)
    return _Scale(vectors.mean(axis=0), np.where(spread < LEAST_SPREAD, 1.0, spread))


class Conversations:
    """An endless iterator over one batch, the part that trains; it knows its place.

    It keeps the vectors of each part once they are made: a class for that, and as the loop's
    sources are.
    """

    def __init__(self, parts: Mapping[PartName, RoutedPart]):
        self.parts = parts
        self._next = 0
        self._made: dict[PartName, np.ndarray] = {}

    def __next__(self) -> RoutedPart:
        self._next += 1
        return self.parts["train"]

    def get_state(self) -> dict[str, int]:
        """The number of the next batch."""
        return {"next_index": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a place that `get_state` gave."""
        self._next = state["next_index"]

    def vectors(self, part: PartName, make: Callable[[], np.ndarray]) -> np.ndarray:
        """`[N, D]` of a part, made by `make` when they are first asked for."""
        if part not in self._made:
            self._made[part] = make()
        return self._made[part]


def conversations_of(job: Job) -> Conversations:
    """Those of a router's run."""
    assert isinstance(job.feed.batches, Conversations)
    return job.feed.batches


def raw_vectors(job: Job) -> Callable[[PartName], np.ndarray]:
    """`vectors(part)`: `[N, D]` float32, as a router's folder sees them too."""
    settings, found = job.settings, conversations_of(job)
    config, skip = job.model.config, common_prompt_start(job.tokenizer)
    read = state_reader(config, job.frozen, settings.layer(config), settings.execution)

    def vectors(part: PartName) -> np.ndarray:
        return found.vectors(part, lambda: read(found.parts[part].documents, skip))

    return vectors
