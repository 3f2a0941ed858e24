"""What a server is made of, and what it is told to do."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hen_jax.core.ranges import Count, Natural, Positive, check_ranges
from hen_jax.measures.safety.guard import Guard
from hen_jax.sampling.slots import Slots
from hen_jax.serving.admission import Admission
from hen_jax.serving.answers import BytesOf
from hen_jax.serving.experts import Experts
from hen_jax.serving.meters import Meters
from hen_jax.serving.shelf import Adapter
from hen_jax.serving.worker import Worker
from hen_jax.text.conversation import Message
from hen_jax.text.streaming import Decode
from hen_jax.text.tokenizer import ChatTokenizer

AUTO = "auto"
"""The model that stands for whichever expert the router chooses."""

RouteOf = Callable[[Sequence[Message]], Mapping[str, float] | None]
"""`route(conversation)`: the weight of each expert, by name, that is to answer; None, or none of
them, is the base. A name that the server does not have counts as the base."""


@dataclasses.dataclass(frozen=True)
class ServerSettings:
    """Bounds of a server.

    Raises:
      InputError: a number out of its range.
    """

    queue: Natural = 64  # replies that may wait for a slot; beyond, 429
    timeout: Positive = 600.0  # seconds that a request may take
    drain: Positive = 30.0  # seconds that replies under way have to end in once it is to stop
    new_tokens: Count = 1024  # of a chat request that asks for no number, where they fit
    body: Count = 8 << 20  # bytes of a request
    log_text: bool = False  # whether the log holds what is said
    loading: bool = False  # whether adapters may be loaded while it runs: it reads any folder named

    def __post_init__(self):
        check_ranges(self)


@dataclasses.dataclass(frozen=True)
class Served:
    """A model with its experts, open to be asked."""

    name: str  # of the base
    created: int  # seconds since 1970
    tokenizer: ChatTokenizer
    decode: Decode  # without control tokens
    bytes_of: BytesOf
    ends: tuple[int, ...]  # the tokens that end a reply
    vocabulary: int
    slots: Slots
    worker: Worker
    experts: Experts
    admission: Admission
    meters: Meters
    texts: ThreadPoolExecutor  # of one thread: what encodes is not for several at a time
    settings: ServerSettings
    log: Callable[[Mapping[str, Any]], None]
    read_adapter: Callable[[Path], Adapter]  # of a folder; raises `InputError`
    route: RouteOf | None = None
    guard: Guard | None = None  # what every reply passes before anything of it is told
    key: str | None = None  # what a client must bring; None: anybody may ask

    @property
    def models(self) -> list[str]:
        """The names that can be asked."""
        router = [] if self.route is None else [AUTO]
        return [self.name, *self.experts.named, *router]
