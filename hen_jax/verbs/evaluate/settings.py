"""What `hen evaluate` is asked to do."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, Natural, Range, Seed, check_ranges
from hen_jax.empathy.labels import LANGUAGES, Language
from hen_jax.runs.chats import Answering, back_end

DATA = ("shipped:hed/hed.en.jsonl", "shipped:hed/hed.zh.jsonl")


@dataclasses.dataclass(frozen=True)
class Evaluating:
    """One `hen evaluate`; fields carry the names of its flags.

    Raises:
      InputError: a number out of range, or flags that contradict each other.
    """

    arm: tuple[str, ...]  # NAME=MODEL[:ADAPTER]; the first is what the others are compared with
    out: Path
    suite: tuple[str, ...] = ("high_context", "overlap")
    data: tuple[str, ...] = DATA
    schema: str = "hed"
    part: str = "test"
    language: Language | None = None  # None: both
    limit: Natural = 0  # items of each task and language, or of each kind of a set; 0: all
    judge: str | None = None  # a back-end
    judge_adapter: Path | None = None
    judge_begin: bool = False
    nonce_seed: Natural | None = None
    reward: str | None = None  # FOLDER[:ADAPTER] of a reward model
    tokenizer: Path | None = None  # of an endpoint, for its log-probabilities
    option: tuple[str, ...] = ()  # KEY=VALUE, for suites
    inspect: Path | None = None  # a folder for logs that inspect-ai opens
    seed: Seed = 0
    draws: Annotated[int, Range(1, 1_000_000)] = 2000
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_size: Count = 32
    at_once: int = 8
    per_minute: float = 0.0
    timeout: float = 120.0
    tries: int = 5

    def __post_init__(self):
        check_ranges(self)
        self.answering()  # refuses what is out of range
        if self.language not in (None, *LANGUAGES):
            raise InputError(f"--language {self.language!r}; allowed: {', '.join(LANGUAGES)}")
        if self.judge_begin and (self.judge is None or back_end(self.judge).kind != "model"):
            raise InputError("--judge-begin goes with --judge model:FOLDER")
        if self.judge_adapter is not None and self.judge is None:
            raise InputError("--judge-adapter goes with --judge model:FOLDER")
        _ = self.options

    @property
    def languages(self) -> tuple[Language, ...]:
        """Those of the items and of sets that suites bring."""
        return LANGUAGES if self.language is None else (self.language,)

    @property
    def options(self) -> dict[str, str]:
        """`--option KEY=VALUE` by key. Raises `InputError` for one that is none."""
        pairs = [text.partition("=") for text in self.option]
        for text, (key, equals, value) in zip(self.option, pairs, strict=True):
            if not (key and equals and value):
                raise InputError(f"--option {text!r}; give KEY=VALUE")
        return {key: value for key, _, value in pairs}

    def answering(self, adapter: Path | None = None) -> Answering:
        """How replies are made, of an arm or of the judge."""
        names = {field.name for field in dataclasses.fields(Answering)} & vars(self).keys()
        return Answering(adapter=adapter, **{name: vars(self)[name] for name in names})


def from_flags(flags: Mapping[str, Any]) -> Evaluating:
    """The flags of the command line, which carry the names of the fields; None is the default."""
    given: dict[str, Any] = {
        field.name: tuple(value) if isinstance(value, list) else value
        for field in dataclasses.fields(Evaluating)
        if (value := flags.get(field.name)) is not None and value != []
    }
    options = [f"{name}={flags[name]}" for name in _OPTIONS if flags.get(name) is not None]
    given["option"] = (*given.get("option", ()), *options)
    return Evaluating(**{"arm": (), **given})


_OPTIONS = ("rubric", "ratings", "scale", "sentiment")
"""Flags that suites read as options."""
