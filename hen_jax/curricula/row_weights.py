"""How much each row trains: its weight, what the scorer sees of it, and what is remembered of it.

The formulas are in `curricula.reweight`, whose steps learn these weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from hen_jax.core.types import Array, Batch, Tree
from hen_jax.curricula.learnt import init_scorer, score_examples
from hen_jax.curricula.shared import CurriculumMemory, EmclConfig, learner

FEATURES = 5
"""What the scorer sees of a row."""


_KEPT = 0.5
"""How much of an earlier influence stays when a row is visited again."""


class Visits(NamedTuple):
    """What is remembered of each of the run's `N` examples."""

    count: Float[Array, "N"]
    loss: Float[Array, "N"]  # per token, at the last visit
    influence: Float[Array, "N"]  # running mean; in units of `scale`
    scale: Float[Array, ""]  # running root mean square of influences


class RowsSeen(NamedTuple):
    """Rows at a visit."""

    task: Array  # [B]
    features: Float[Array, "B F"]


def init_reweighting(
    config: EmclConfig, tasks: int, key: PRNGKeyArray, examples: int
) -> CurriculumMemory:
    """All rows weigh the same, and none was visited."""
    scorer = init_scorer(key, FEATURES, config.scorer_width)
    eta = {"amount": jnp.zeros(tasks), "onset": jnp.zeros(tasks), "scorer": scorer}
    nothing = jnp.zeros(examples)
    visits = Visits(nothing, nothing, nothing, jnp.zeros(()))
    return CurriculumMemory(jnp.zeros(tasks), eta, learner(config).init(eta), visits)


def row_weights(
    config: EmclConfig, eta: Tree, seen: RowsSeen, time: Float[Array, ""]
) -> Float[Array, "B"]:
    """Mean 1 over the batch, none below `config.floor`; `time` goes from -1 to 1."""
    raw = eta["amount"][seen.task] + eta["onset"][seen.task] * time
    raw = raw + score_examples(eta["scorer"], seen.features)
    logits = config.bound * jnp.tanh(raw / config.bound)
    return config.floor + (1 - config.floor) * len(logits) * jax.nn.softmax(logits)


def seen_of(visits: Visits, batch: Batch, sums: Array, counts: Array) -> RowsSeen:
    """What the scorer sees of rows whose losses sum to `sums` over `counts` tokens."""
    per_token = sums / jnp.maximum(counts, 1)
    known = visits.count[batch.example] > 0
    fell = jnp.where(known, visits.loss[batch.example] - per_token, 0.0)
    features = [
        per_token - per_token.mean(),
        fell,
        jnp.where(known, visits.influence[batch.example], 0.0),
        known.astype(jnp.float32),
        jnp.log(jnp.maximum(counts, 1)) - 3.0,
    ]
    return RowsSeen(batch.task, jax.lax.stop_gradient(jnp.stack(features, axis=1)))


def visited(
    visits: Visits, example: Array, per_token: Float[Array, "B"], influence: Float[Array, "B"]
) -> Visits:
    """The table after a visit; `influence` in any unit, which is the same at each visit."""
    square = jnp.mean(influence**2)
    first = visits.scale == 0
    scale = jnp.where(first, square**0.5, (0.9 * visits.scale**2 + 0.1 * square) ** 0.5)
    now = influence / jnp.maximum(scale, 1e-30)
    again = visits.count[example] > 0
    mixed = jnp.where(again, _KEPT * visits.influence[example] + (1 - _KEPT) * now, now)
    return Visits(
        visits.count.at[example].add(1),
        visits.loss.at[example].set(per_token),
        visits.influence.at[example].set(jnp.clip(mixed, -3, 3)),
        scale,
    )
