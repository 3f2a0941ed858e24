"""What `hen synthesize` is asked to do."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, NotNegative, Range, Seed, check_ranges, require_in
from hen_jax.empathy.labels import LANGUAGES, Language
from hen_jax.runs.chats import Answering
from hen_jax.synthesis.scenes import WantedScenes

MOST_TURNS = 10
"""Messages of the user in one conversation at most, as in the second paper's conversations."""


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """One `hen synthesize`; fields carry the names of its flags.

    Raises:
      InputError: a number out of range, or a language there is none of.
    """

    backend: str  # who writes the assistant's sides
    out: Path
    user_backend: str | None = None  # who plays the user; None: the same
    judge: str | None = None  # None: nothing is judged
    patterns: Path | None = None  # None: our four contexts
    materials: Path | None = None  # None: as shipped
    language: Language = "en"
    contexts: tuple[str, ...] = ()  # (): all
    each: Annotated[int, Range(1, 1_000_000)] = 20  # conversations of a context
    turns: tuple[int, int] = (2, 4)  # messages of the user, at least and at most
    hard: NotNegative = 0.5  # share of conversations that also get a hard pair
    length_ratio: float = 1.5  # of the two sides' lengths, at most
    near: float = 0.7  # similarity from which a text counts as said before
    least: NotNegative = 0.5  # what a judge must give the chosen side, on [0, 1]
    seed: Seed = 0
    record: Path | None = None  # where a replay of all models is written
    max_new_tokens: Count = 320
    temperature: float = 0.8
    top_p: float = 0.95
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_size: Count = 16  # conversations that are asked about at a time
    at_once: Count = 8
    per_minute: float = 0.0
    timeout: float = 120.0
    tries: Count = 5

    def __post_init__(self):
        check_ranges(self)
        self.answering()  # refuses what is out of range
        low, high = self.turns
        if not 2 <= low <= high <= MOST_TURNS:
            raise InputError(
                f"--turns {low} {high}; allowed: two numbers from 2 to {MOST_TURNS}, the lower "
                "first"
            )
        require_in("--hard", self.hard, Range(0, 1))
        require_in("--length-ratio", self.length_ratio, Range(1, above=True))
        require_in("--near", self.near, Range(0.5, 1, above=True))
        require_in("--least", self.least, Range(0, 1))
        for one in self.contexts:
            if self.contexts.count(one) > 1:
                raise InputError(f"--contexts names {one!r} twice; give each once")
        if self.language not in LANGUAGES:
            raise InputError(f"--language {self.language!r}; allowed: {', '.join(LANGUAGES)}")

    def wanted(self, contexts: tuple[str, ...]) -> WantedScenes:
        """How many scenes, and of what; `contexts` are all there are."""
        return WantedScenes(self.contexts or contexts, self.each, self.turns, self.hard, self.seed)

    def answering(self, *, judge: bool = False) -> Answering:
        """How replies are made; a judge's are greedy."""
        names = [field.name for field in dataclasses.fields(Answering) if field.name in vars(self)]
        given = Answering(**{name: vars(self)[name] for name in names})
        return dataclasses.replace(given, temperature=0.0, top_p=1.0) if judge else given

    def decisive(self) -> dict[str, Any]:
        """All that the result depends on, as JSON; files by name here, and by checksum elsewhere.

        Replies of a batch are drawn together, so its size belongs to it.
        """
        left_out = {"out", "record", "at_once", "per_minute", "timeout", "tries"}
        plain = {key: value for key, value in vars(self).items() if key not in left_out}
        return {
            key: str(value) if isinstance(value, Path) else
            list(value) if isinstance(value, tuple) else value
            for key, value in plain.items()
        }  # fmt: skip


def from_flags(flags: Mapping[str, Any]) -> Synthesis:
    """The flags of the command line, which carry the names of the fields."""
    given: dict[str, Any] = {one.name: flags[one.name] for one in dataclasses.fields(Synthesis)}
    given["contexts"], given["turns"] = tuple(given["contexts"]), tuple(given["turns"])
    return Synthesis(**given)
