"""Everything that decides what a rollout teaches, and how the trees of a policy run are called."""

import dataclasses
from typing import Literal

from hen_jax.core.ranges import Count, NotNegative, check_ranges
from hen_jax.core.types import Tree
from hen_jax.objectives.advantages import AdvantageConfig
from hen_jax.objectives.policy import KlConfig, ObjectiveConfig
from hen_jax.steps.preference import BASE

VALUE, CRITIC = "value", "critic"
"""Keys of `params` beside the decoder's own: the value head, and an adapter of its own for it."""

DIALS = "dials"
"""Key of what is frozen, beside `BASE` and `REFERENCE`: the numbers an update is told."""

BEHAVIOUR = "behaviour"
"""Key of the memory: the parameters that the next rollout is drawn with, one update old."""


@dataclasses.dataclass(frozen=True)
class ValueConfig:
    """The value model of PPO."""

    model: Literal["head", "adapter"] = "head"  # on the policy's states, or an adapter beside it
    coefficient: NotNegative = 0.1  # of its loss
    clip: NotNegative = 0.2  # how far a value may move at once; 0: anywhere

    def __post_init__(self):
        check_ranges(self)


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """Everything that decides what a rollout teaches.

    A reply that was cut off by its length did not end. `truncated` "mask" leaves it out of the
    update, "keep" learns from it, under gae going on with the value of its last state, and "end"
    takes the limit for a part of the task: what it earned is all. None masks under advantages of
    groups, and keeps under gae.
    """

    advantage: AdvantageConfig = AdvantageConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    kl: KlConfig = KlConfig()
    value: ValueConfig = ValueConfig()
    truncated: Literal["mask", "keep", "end"] | None = None  # replies cut by their length; above
    flat_groups: Literal["keep", "mask"] = "keep"  # groups of equal rewards, in the denominator
    epochs: Count = 1  # passes over a rollout
    minibatches: Count = 1  # updates of a pass

    def __post_init__(self):
        check_ranges(self)

    @property
    def valued(self) -> bool:
        """Whether there is a value model."""
        return self.advantage.kind == "gae"

    @property
    def cut_replies(self) -> Literal["mask", "keep", "end"]:
        """What becomes of truncated replies."""
        return self.truncated or ("keep" if self.valued else "mask")

    @property
    def updates(self) -> int:
        """Updates of one rollout."""
        return self.epochs * self.minibatches


def decoder_of(params: Tree) -> Tree:
    """The decoder's own leaves among those that train."""
    return {name: leaf for name, leaf in params.items() if name != VALUE}


def base_of(frozen: Tree) -> Tree:
    """The decoder's leaves that do not train; they are all there is where no reference is kept."""
    return frozen.get(BASE, frozen)
