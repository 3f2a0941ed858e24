"""The settings of an objective of preferences."""

import dataclasses
from typing import Annotated, Literal, get_args

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import NotNegative, Positive, Range, UpToOne, check_ranges
from hen_jax.objectives.direct import OBJECTIVES, Objective, Values

Name = Literal[
    "dpo",
    "cdpo",
    "robust",
    "hinge",
    "ipo",
    "exo",
    "dpo_norm",
    "ld_dpo",
    "simpo",
    "cpo",
    "orpo",
    "kto",
]
assert set(get_args(Name)) == set(OBJECTIVES)

BelowHalf = Annotated[float, Range(0, 0.5, above=True, below=True)]


@dataclasses.dataclass(frozen=True)
class PreferenceConfig:
    """The objective; a number that is None is the published one, and one may be given only where
    the objective reads it (`objectives.direct.OBJECTIVES`).

    Raises:
      InputError: a number out of its range, or one that the objective does not read.
    """

    loss: Name = "dpo"  # which objective
    beta: Positive | None = None  # DPO's temperature, IPO's tau, ORPO's lambda
    margin: NotNegative | None = None  # gamma of simpo
    smoothing: BelowHalf | None = None  # share of labels taken to be wrong: cdpo, robust, exo
    tail: UpToOne | None = None  # ld_dpo: what tokens past the shorter reply's end count for
    sft: NotNegative | None = None  # weight of the chosen reply's cross-entropy, nats a token
    desirable: Positive | None = None  # kto: weight of wanted replies
    undesirable: Positive | None = None  # kto: weight of unwanted replies
    turn_discount: UpToOne = 1.0  # the k-th reply of a continuation, from 0, counts this to the k
    reference: Literal["start", "precomputed"] = "start"  # kept, or its log-probabilities stored

    def __post_init__(self):
        check_ranges(self)
        published = OBJECTIVES[self.loss].published
        for name in Values._fields:
            if vars(self)[name] is not None and name not in (*published, "sft"):
                raise InputError(
                    f"{name} is {vars(self)[name]}, which {self.loss!r} does not read; leave it out"
                )
        if self.loss == "kto" and self.reference == "precomputed":
            raise InputError(
                "reference is 'precomputed', but kto also needs log-probabilities of replies "
                "behind prompts that the shuffle decides on; give 'start'"
            )

    @property
    def objective(self) -> Objective:
        """The formulas."""
        return OBJECTIVES[self.loss]

    @property
    def values(self) -> Values:
        """The numbers: those given, else the published ones."""
        given = {name: vars(self)[name] for name in Values._fields}
        given = {name: value for name, value in given.items() if value is not None}
        return Values(**{**self.objective.published, **given})

    @property
    def keeps_reference(self) -> bool:
        """Whether the step computes with the reference policy."""
        return self.objective.start is not None and self.reference == "start"
