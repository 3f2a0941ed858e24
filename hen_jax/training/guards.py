"""Updates that must not be made: gradients that are not finite, or far larger than usual."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from hen_jax.core.ranges import BelowOne, Natural, NotNegative, check_ranges
from hen_jax.core.types import Array, Mean, Tree
from hen_jax.steps.state import State
from hen_jax.steps.update import Metrics

SKIPPED = "skipped"
"""The metric that says how many updates in a row were left out, this one included; 0: made."""


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """Which updates are left out. A skipped one changes neither parameters nor moments."""

    spike: NotNegative = 0.0  # times the usual gradient norm; 0: any finite gradient is good
    memory: BelowOne = 0.98  # of the running mean of good norms, per update
    warmup: Natural = 20  # good updates before a norm counts as unusual

    def __post_init__(self):
        check_ranges(self)


class Guarded(NamedTuple):
    """Optimizer state: the inner optimizer's, and what is usual."""

    inner: optax.OptState
    usual: Float[Array, ""]  # running mean of the good norms, from 0
    good: Int[Array, ""]
    in_row: Int[Array, ""]  # skipped since the last good one


def guard(inner: optax.GradientTransformation, config: GuardConfig) -> optax.GradientTransformation:
    """`inner`, but an update whose gradient is bad is zero and leaves no trace in the moments.

    So is one that would make a parameter infinite or NaN, as an overflow of float16 does.

    The norm is that of the gradient as it comes, so the guard goes around clipping. While all is
    well the updates are those of `inner`, bit for bit. With `spike=10` a norm of 10.1 among norms
    of 1 is bad, as are NaN and infinity with any `spike`.
    """

    def init(params: Tree) -> Guarded:
        zero = jnp.zeros((), jnp.int32)
        return Guarded(inner.init(params), jnp.zeros((), jnp.float32), zero, zero)

    def update(
        updates: Tree, state: optax.OptState, params: Tree | None = None
    ) -> tuple[Tree, Guarded]:
        assert isinstance(state, Guarded)
        # A constant to meta-gradients: a norm has no derivative where the gradient is zero.
        norm = jax.lax.stop_gradient(optax.tree.norm(updates).astype(jnp.float32))
        ok = _is_good(norm, state, config)
        updates, moments = inner.update(updates, state.inner, params)
        ok &= _all_finite(updates if params is None else optax.apply_updates(params, updates))
        kept = Guarded(
            jax.tree.map(lambda new, old: jnp.where(ok, new, old), moments, state.inner),
            jnp.where(ok, config.memory * state.usual + (1 - config.memory) * norm, state.usual),
            state.good + ok,
            jnp.where(ok, 0, state.in_row + 1),
        )
        return jax.tree.map(lambda u: jnp.where(ok, u, jnp.zeros_like(u)), updates), kept

    return optax.GradientTransformation(init, update)


AnyStep = Callable[[State, Tree, Any], tuple[State, Metrics]]


def reporting(guarded: AnyStep) -> AnyStep:
    """The step `guarded`, whose optimizer is a `guard`, with the metric `skipped`.

    Where there are several guards, as of experts that train together, the worst counts.
    """

    def step(state: State, frozen: Tree, batch: Any) -> tuple[State, Metrics]:
        state, metrics = guarded(state, frozen, batch)
        in_row = jnp.stack([one.in_row for one in _guards(state.opt_state)]).max()
        return state, metrics | {
            SKIPPED: Mean(in_row.astype(jnp.float32), jnp.ones((), jnp.float32))
        }

    step.__name__ = guarded.__name__
    return step


def made_updates(state: Tree) -> int | None:
    """How many updates of the run were made, over all its attempts; None where no guard counts."""
    counts = [int(one.good) for one in _guards(state)]
    return sum(counts) if counts else None


def _guards(state: Tree) -> list[Guarded]:
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, Guarded))
    return [leaf for leaf in leaves if isinstance(leaf, Guarded)]


def _all_finite(tree: Tree) -> Array:
    leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.stack(leaves).all() if leaves else jnp.array(True)


def _is_good(norm: Array, state: Guarded, config: GuardConfig) -> Array:
    finite = jnp.isfinite(norm)
    if config.spike == 0.0:
        return finite
    # The mean starts at 0: without this the first norms would all look unusual (as in Adam).
    usual = state.usual / (1 - config.memory ** jnp.maximum(state.good, 1))
    return finite & ((state.good < config.warmup) | (norm <= config.spike * usual))
