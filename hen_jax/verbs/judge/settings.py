"""What `hen judge` is asked to do."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, Natural, Range, Seed, check_ranges
from hen_jax.data.judged import REPLIES
from hen_jax.empathy.labels import Language
from hen_jax.evaluation.judge_prompts import MODES, Mode
from hen_jax.runs.chats import Answering, back_end


@dataclasses.dataclass(frozen=True)
class Judging:
    """One `hen judge`; fields carry the names of its flags.

    Raises:
      InputError: a number out of range, or no such mode.
    """

    input: Path
    rubric: str
    backend: str
    out: Path
    schema: str = REPLIES
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mode: Mode = "pointwise"
    language: Language = "en"
    by_dimension: bool = False
    repeats: Annotated[int, Range(1, 1000)] = 2
    probes: Natural = 20  # items that are probed for self-preference and injection
    seed: Seed = 0
    nonce_seed: Natural | None = None
    begin: bool = False  # the verdict's first words are put into the judge's mouth
    record: Path | None = None  # where a replay of the judge is written
    max_new_tokens: int = 96
    temperature: float = 0.0
    top_p: float = 1.0
    adapter: Path | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_size: Count = 16
    at_once: int = 8
    per_minute: float = 0.0
    timeout: float = 120.0
    tries: int = 5

    def __post_init__(self):
        check_ranges(self)
        self.answering()  # refuses what is out of range
        if self.mode not in MODES:
            raise InputError(f"--mode {self.mode!r}; allowed: {', '.join(MODES)}")
        if self.begin and back_end(self.backend).kind != "model":
            raise InputError(
                "--begin goes with --backend model:FOLDER: others begin for themselves"
            )
        if self.by_dimension and self.mode != "pointwise":
            raise InputError(f"--by-dimension goes with --mode pointwise, not with {self.mode}")

    def answering(self) -> Answering:
        """How the judge's replies are made."""
        names = [field.name for field in dataclasses.fields(Answering) if field.name in vars(self)]
        return Answering(**{name: vars(self)[name] for name in names})


def from_flags(flags: Mapping[str, Any]) -> Judging:
    """The flags of the command line, which carry the names of the fields."""
    given: dict[str, Any] = {field.name: flags[field.name] for field in dataclasses.fields(Judging)}
    given["columns"] = dict(given["columns"])
    return Judging(**given)
