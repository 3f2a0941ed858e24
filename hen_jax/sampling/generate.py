"""How a batch of prompts is continued, where all rows are asked for the same."""

import dataclasses

from hen_jax.core.errors import InputError
from hen_jax.sampling.logits import Sampling


@dataclasses.dataclass(frozen=True)
class Generating:
    """What a generation does besides its inputs.

    Raises:
      InputError: no new token, or an empty stop string.
    """

    max_new_tokens: int
    stop: tuple[int, ...]  # a row ends with the first of these tokens it draws
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    stop_strings: tuple[str, ...] = ()  # or where its text comes to one of these

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; give 1 or more")
        if "" in self.stop_strings:
            raise InputError("a stop string is empty: every reply would end before it begins")
