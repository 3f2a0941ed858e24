"""A reward as a config names it."""

import dataclasses

from hen_jax.core.ranges import Count, Natural, check_ranges
from hen_jax.evaluation.judge_rewards import JudgeMode


@dataclasses.dataclass(frozen=True)
class RewardSource:
    """One reward of a run; which fields count depends on its kind."""

    kind: str  # a name of `recipes.policy_rewards.REWARDS`
    name: str | None = None  # in the log; None: the kind
    weight: float = 1.0  # in the sum; negative ones punish
    held_out: bool = False  # a probe: asked at evaluations alone, never trained on
    low: Natural = 1  # length: letters at least
    high: Natural = 1000  # length: letters at most
    n: Count = 3  # repetition: words of what may not be said twice
    language: str | None = None  # language, formulas: "en" or "zh"; None: that of the record
    path: str | None = None  # model, epitome: its folder; function: FILE.py:NAME
    adapter: str | None = None  # model: the folder of its adapter
    calibration: str | None = None  # model: its reward.json; None: what its export says
    judge: str | None = None  # judge: who judges, as `model:FOLDER`, `endpoint:URL#MODEL`, ...
    mode: JudgeMode = "pointwise"  # judge: replies one by one, or a group by its order
    rubric: str = "high_context"  # judge: a shipped rubric's name, or a file

    def __post_init__(self):
        check_ranges(self)

    @property
    def called(self) -> str:
        """Its name in the log."""
        return self.name or self.kind


@dataclasses.dataclass(frozen=True)
class Circumstance:
    """What a reward may need to know of the run."""

    seconds: float  # that a plain reward may take for one reply; 0: any
    longest: int  # tokens of a prompt and its reply
