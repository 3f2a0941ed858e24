"""What is asked of a measurement of experts: conversations, arms and measures."""

import dataclasses
from pathlib import Path
from typing import Literal, get_args

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json
from hen_jax.core.ranges import Count, Natural, NotNegative, check_ranges
from hen_jax.data.splits import Part
from hen_jax.evaluation.expert_report import Desired
from hen_jax.runs.chats import Answering, back_end
from hen_jax.runs.settings import settings
from hen_jax.runs.sources import Source

CONTEXT, EXPERT = "{context}", "{expert}"
"""In a path: the conversation's context, and the expert that answers."""

_Kind = Literal["preference", "rating", "judge"]


@dataclasses.dataclass(frozen=True)
class ExpertArm:
    """Who answers, and what it is told."""

    name: str
    prompted: bool = False  # the context's empathy pattern stands before as a system message
    backend: str | None = None  # "{expert}" in it is the expert; None: that of all
    adapter: str | None = None  # a folder, "{expert}" in it likewise; None: the base
    route: str = "oracle"  # the expert of the context; "wrong": of the next; or a router's folder


@dataclasses.dataclass(frozen=True)
class LevelMeasure:
    """What gives a reply its level in [0, 1]; "{context}" in a path is the conversation's."""

    name: str
    kind: _Kind = "preference"  # a reward model with its calibration, a rating model, or a judge
    model: str = ""  # a folder; of a judge, who judges: `model:FOLDER`, `endpoint:URL#MODEL`, ...
    adapter: str | None = None  # of the model
    replies: str | None = None  # the same kind of model, trained on replies alone: its control
    replies_adapter: str | None = None  # of that
    rubric: str = CONTEXT  # of a judge: a shipped one, or a file
    target: Desired | None = None  # "stated" or "chosen"; None: chosen of a preference model

    @property
    def desired(self) -> Desired:
        """What it is compared with."""
        return self.target or ("chosen" if self.kind == "preference" else "stated")

    def __post_init__(self):
        if not self.model:
            raise InputError(f"measure {self.name!r} has no model; give its folder")
        if self.kind == "judge":
            back_end(self.model)


_Asked = Literal["valid", "test", "held_out", "all"]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One measurement; a JSON file with these fields.

    Raises:
      InputError: names that are not their own, no arm of the baseline's name, no measure.
    """

    backend: str  # who answers, as `model:FOLDER`
    conversations: tuple[Source, ...]  # of the schema "steered"; their user side is replayed
    arms: tuple[ExpertArm, ...]
    measures: tuple[LevelMeasure, ...]
    crossed: tuple[str, ...] = ()  # files of crossed items, for measures that bring no accuracies
    baseline: str = "baseline"  # the arm that the others are compared with
    part: _Asked = "held_out"  # of the conversations: valid, test, both, or all
    limit: Natural = 0  # conversations of a context at most; 0: all
    turns: Count = 10  # at most
    max_new_tokens: Count = 160
    temperature: NotNegative = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: Natural = 0
    draws: Count = 2000  # of the bootstrap

    def __post_init__(self):
        check_ranges(self)
        for what, given in (("arms", self.arms), ("measures", self.measures)):
            names = [one.name for one in given]
            if not all(names) or len(set(names)) < max(len(names), 1):
                raise InputError(f"{what} are {names}; give one or more, each its own name")
        if self.baseline not in [arm.name for arm in self.arms]:
            raise InputError(f"baseline is {self.baseline!r}, and no arm is called so")
        for source in self.conversations:
            if source.schema != "steered":
                raise InputError(f"conversations of the schema {source.schema!r}; give 'steered'")
        back_end(self.backend)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the split that are asked for."""
        several: dict[_Asked, tuple[Part, ...]] = {
            "held_out": ("valid", "test"),
            "all": get_args(Part),
            "valid": ("valid",),
            "test": ("test",),
        }
        return several[self.part]

    def answering(self, adapter: Path | None) -> Answering:
        """How an arm replies."""
        return Answering(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=self.seed,
            adapter=adapter,
            dtype=self.dtype,
        )


def read_measurement(path: Path) -> Measurement:
    """A measurement from its JSON file.

    Raises:
      InputError: no such file, or a field that is not right, by its name.
    """
    return settings(Measurement, read_json(path), str(path))
