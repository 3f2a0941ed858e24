"""The scalar that an inner loop takes, from a `Mean` or from weighted per-example losses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Mean, Tree


def mean_loss(
    loss: Callable[[Tree, Tree, Tree], tuple[Mean, Tree]], microbatches: int = 1
) -> Callable[[Tree, Tree, Tree], Array]:
    """`total / count` of a loss that returns `(Mean, named means)`, as a scalar.

    With several microbatches the rows of the batch are visited in turn and each is rematerialised,
    so that the memory of the gradient *and* of its derivative (the `jvp` of `mixflow`) is that of
    one microbatch; one more forward pass is the price. Exact for any loss whose total and count
    add over rows, also where weights from `eta` enter the count.

    Raises:
      InputError: the number of rows is no multiple of `microbatches`.
    """
    if microbatches == 1:
        return lambda theta, eta, batch: _ratio(loss(theta, eta, batch)[0])

    def scalar(theta: Tree, eta: Tree, batch: Tree) -> Array:
        @jax.checkpoint
        def mean(rows: Tree) -> Mean:
            return loss(theta, eta, rows)[0]

        parts = jax.lax.map(mean, jax.tree.map(lambda x: _strided(x, microbatches), batch))
        return _ratio(jax.tree.map(jnp.sum, parts))

    return scalar


def weighted(
    per_example: Callable[[Tree, Tree], Array], weights: Callable[[Tree, Tree], Array]
) -> Callable[[Tree, Tree, Tree], Array]:
    """`sum_i w_i l_i`, `l = per_example(theta, batch)` and `w = weights(eta, batch)`, both [B].

    Learning to reweight: `weights = lambda eta, batch: eta`. A DataRater (arXiv 2505.17895):
    `jax.nn.softmax(scorer(eta, batch))`. A weight per task: `eta[batch["task"]] / rows`. Curriculum
    scores: a column per task of a matrix in `eta`, with the step in the batch.
    """
    return lambda theta, eta, batch: jnp.sum(weights(eta, batch) * per_example(theta, batch))


def rectified(gradient: Array) -> Array:
    """Learning to reweight (Ren et al., ICML 2018, eq. 6-8): `max(-g, 0)`, normalised to sum 1.

    `gradient` is the meta-gradient with respect to weights that start at zero, [B]: minus the rate
    times the inner product of each example's gradient with that of the clean loss. An example that
    pulls the other way gets exactly 0; if all do, all get 0.
    """
    positive = jnp.maximum(-gradient, 0)
    total = jnp.sum(positive)
    return positive / jnp.where(total > 0, total, 1)


def _ratio(mean: Mean) -> Array:
    return mean.value


def _strided(rows: Array, microbatches: int) -> Array:
    # Every microbatch takes rows of every device's share: m, m + n, m + 2n, ...
    if rows.shape[0] % microbatches:
        raise InputError(
            f"{rows.shape[0]} rows do not split into {microbatches} microbatches; choose a divisor"
        )
    return rows.reshape(-1, microbatches, *rows.shape[1:]).swapaxes(0, 1)
