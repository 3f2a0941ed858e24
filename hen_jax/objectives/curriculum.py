"""What a curriculum computes: competence, difficulty, order, soft order, example weights."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from hen_jax.core.types import Array


def competence(
    step: Int[Array, "*steps"] | int, steps: int, initial: float = 0.1
) -> Float[Array, "*steps"]:
    """The share of the tasks that a learner may see at `step` of `steps` (Platanios et al., 2019).

    `min(1, sqrt(t (1 - c0^2) / T + c0^2))`: with `c0 = 0.1` it is 0.1, 0.5074, 0.7106 and 1 at the
    start, a quarter, a half and the end.
    """
    progress = jnp.asarray(step, jnp.float32) / steps
    return jnp.minimum(1.0, jnp.sqrt(progress * (1 - initial**2) + initial**2))


def active_tasks(share: Float[Array, "*steps"], tasks: int) -> Int[Array, "*steps"]:
    """How many of `tasks` the share admits: `ceil(share * tasks)`, 3 of 4 for 0.5074.

    A rounding error above a whole number admits no further task.
    """
    return jnp.ceil(share * tasks - 1e-5).astype(jnp.int32)


def averaged_difficulty(
    before: Float[Array, "tasks"],
    now: Float[Array, "tasks"],
    step: Int[Array, ""] | int,
    smoothing: float = 0.9,
) -> Float[Array, "tasks"]:
    """`smoothing * before + (1 - smoothing) * now`; at step 0 it is `now`."""
    kept = jnp.where(jnp.asarray(step) == 0, 0.0, smoothing)
    return kept * before + (1 - kept) * now


def soft_sort(scores: Float[Array, "tasks"], temperature: float) -> Float[Array, "places tasks"]:
    """SoftSort (Prillo and Eisenschlos, 2020): row `j` says how much each task is the `j`-th.

    `softmax_row(-|sort(psi) 1' - 1 psi'| / temperature)`, ascending: the task of the lowest score
    comes first. Rows sum to 1. As the temperature falls to 0 the matrix becomes the permutation
    that sorts. Equal scores share their places and have no gradient: start them apart.
    """
    distance = jnp.abs(jnp.sort(scores)[:, None] - scores[None, :])
    return jax.nn.softmax(-distance / temperature, axis=1)


def places(order: Int[Array, "tasks"]) -> Int[Array, "tasks"]:
    """The place of each task in an order of task indices: `places([2, 0, 1])` is `[1, 2, 0]`."""
    return jnp.argsort(order)


def reward_weights(rewards: Float[Array, "B"], temperature: float) -> Float[Array, "B"]:
    """Weights of a batch's examples by their rewards: `B softmax(r / temperature)`, constants.

    Equal rewards weigh 1 each. Our reconstruction of "empathetic-oriented": a `Batch.weight` that
    makes any loss of the batch lean to the replies that the reward model prefers.
    """
    return jax.lax.stop_gradient(len(rewards) * jax.nn.softmax(rewards / temperature))
