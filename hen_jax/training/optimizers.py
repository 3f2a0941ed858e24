"""From a few numbers to an optax chain and its schedule."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Literal

import optax
from jaxtyping import Float, Int

from hen_jax.core.ranges import NotNegative, Range, check_ranges, require_in
from hen_jax.core.trees import map_with_path
from hen_jax.core.types import Array, Tree
from hen_jax.meta.inner import clip_by_norm

Schedule = Callable[[Int[Array, ""] | int], Float[Array, ""]]

# What float32 holds: a smaller `eps` is 0 there (0 / 0 at a zero gradient), a larger `b` is 1.
_BELOW_ONE, _TINY = 1 - 2**-24, 2.0**-126
Fraction = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, _BELOW_ONE)]
Norm = Annotated[float, Range(0, 1e30, above=True)]
Added = Annotated[float, Range(_TINY, 1)]
AddedOrNot = Annotated[float, Range(_TINY, 1, also=0)]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a warm-up, a decay and clipping by the global norm.

    Raises:
      InputError: a number is out of its range; names the field, the value and what is allowed.
    """

    learning_rate: Annotated[float, Range(0, 10, above=True)]  # at its highest
    schedule: Literal["constant", "linear", "cosine"] = "cosine"  # after the warm-up
    warmup: Fraction = 0.03  # share of all steps
    final: Fraction = 0.0  # learning rate at the end, as a share of the highest
    clip_norm: Norm = 1.0  # a longer gradient is scaled to this length
    weight_decay: NotNegative = 0.0  # decoupled, 1 / learning_rate at most; no norms, no biases
    b1: Decay = 0.9  # decay of the running mean of gradients
    b2: Decay = 0.999  # decay of the running mean of their squares
    eps: Added = 1e-8  # added to the root of that mean
    eps_root: AddedOrNot = 0.0  # under the root; above 0 where updates are differentiated

    def __post_init__(self):
        check_ranges(self)
        # An update takes `learning_rate * weight_decay` of a weight away: no more than all of it.
        require_in("weight_decay", self.weight_decay, Range(0, 1 / self.learning_rate))


def make_schedule(config: OptimizerConfig, steps: int) -> Schedule:
    """Learning rate by step: linear from 0 over `warmup * steps`, then down to `final`."""
    peak, warmup = config.learning_rate, round(config.warmup * steps)
    rest = max(steps - warmup, 1)
    decays = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, peak * config.final, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest, alpha=config.final),
    }
    decay = decays[config.schedule]
    if warmup == 0:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def make_optimizer(config: OptimizerConfig, schedule: Schedule) -> optax.GradientTransformation:
    """Clip, then AdamW (Loshchilov and Hutter, 2019)."""
    return optax.chain(
        clip_by_norm(config.clip_norm),
        optax.adamw(
            schedule,
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            eps_root=config.eps_root,
            weight_decay=config.weight_decay,
            mask=_decays,
        ),
    )


def _decays(params: Tree) -> Tree:
    return map_with_path(lambda path, _: not path.endswith(("/scale", "/bias")), params)
