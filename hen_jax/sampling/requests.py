"""What is asked of the engine and what it answers: token ids and numbers, no text."""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.sampling.logits import Sampling


class AdapterMix(NamedTuple):
    """Which adapters of a model that holds several answer, and how strongly."""

    key: str = ""  # names their contents and weights; "": the base alone
    gate: tuple[float, ...] = ()  # factor on each column of `x A` (`adapters.experts`); then 0s


BASE = AdapterMix()


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt to be continued, by settings of its own.

    What is drawn depends on the prompt, these settings and `seed` alone, not on what else the
    engine does.

    Raises:
      InputError: an empty prompt or stop string, no new token, or a seed out of range.
    """

    prompt: tuple[int, ...]
    max_new_tokens: int = 128
    stop: tuple[int, ...] = ()  # the reply ends with the first of these tokens it draws
    stop_strings: tuple[str, ...] = ()  # the reply ends with the token that completes one of these
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    seed: int = 0  # below 2**32
    adapter: AdapterMix = BASE  # of a model that holds several
    hints: tuple[tuple[int, ...], ...] = ()  # texts that the reply may repeat: earlier ones, say
    tops: bool = True  # whether the most probable tokens are listed, as many as the slots list

    def __post_init__(self):
        if not self.prompt:
            raise InputError("a prompt holds no token; give at least one")
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; give 1 or more")
        if "" in self.stop_strings:
            raise InputError("a stop string is empty: every reply would end before it begins")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"a seed is {self.seed}; give 0 to {2**32 - 1}")


Finish = Literal["stop", "length", "cancelled"]


class Top(NamedTuple):
    """The most probable tokens at each place of a reply, most probable first; in nats."""

    tokens: np.ndarray  # [M, n] int32
    log_probs: np.ndarray  # [M, n] float32, of the model itself
    sampling_log_probs: np.ndarray  # [M, n]; minus infinity at what could not be drawn


class Completion(NamedTuple):
    """A reply of `M` tokens, the stop token included; log-probabilities in nats.

    `log_probs` are of the model at temperature 1, `sampling_log_probs` of what the token was drawn
    from (0 where greedy). `support` says which tokens could be drawn, one bit each, as
    `numpy.packbits` packs them (`unpack_support`); None where all could, or it was not asked for.
    """

    id: int
    tokens: np.ndarray  # [M] int32
    log_probs: np.ndarray  # [M] float32
    sampling_log_probs: np.ndarray  # [M] float32
    support: np.ndarray | None  # [M, ceil(V / 8)] uint8
    top: Top | None  # None: not asked for
    prompt_tokens: int
    cached_tokens: int  # of the prompt, whose keys and values were there already
    finish: Finish
    stop_string: str | None = None  # the one that ended it


class Event(NamedTuple):
    """What a step brought one request."""

    id: int
    tokens: np.ndarray  # [N] int32, the new ones
    log_probs: np.ndarray  # [N] float32, of the model itself
    top: Top | None  # the most probable at their places; None: not asked for
    completion: Completion | None  # once it is finished: the whole reply


def unpack_support(support: np.ndarray, vocabulary: int) -> np.ndarray:
    """`[M, V]` bool from the packed bits of `Completion.support`."""
    return np.unpackbits(support, axis=-1, count=vocabulary).astype(bool)
