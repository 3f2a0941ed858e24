"""How the gradient of each row lies to a direction: the derivative of its loss along it.

`row_sums(params, frozen, batch, direction, gate)` gives the sum of each row's token losses and the
number of its tokens, with `params + gate_b direction` for row `b`: right to first order in the
gate, which is to be 0. The derivative by the gate is `<grad L_b, direction>`.

With a LoRA the gate is one on the columns of two more adapters beside the trained one,

    (A + g dA)(B + g dB) = A B + g (dA B + A dB) + O(g^2),

so that all rows' derivatives come with the backward pass that the step makes anyway.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Float

from hen_jax.adapters.experts import expert_gate, joint_adapter
from hen_jax.core.types import Array, Batch, Mean, Tree
from hen_jax.models.config import LoraConfig
from hen_jax.models.decoder import merge
from hen_jax.objectives.tokens import score_tokens
from hen_jax.steps.update import Loss

RowSums = Callable[
    [Tree, Tree, Batch, Tree | None, Float[Array, "B"] | None],
    tuple[Float[Array, "B"], Float[Array, "B"]],
]
"""`(params, frozen, batch, direction, gate) -> (sums, counts)`; None and None: `params` alone."""


def loss_row_sums(loss: Loss) -> RowSums:
    """Of any loss that honours `batch.weight`, a mean over tokens; with a direction it costs a
    second backward pass.
    """

    def row_sums(
        params: Tree, frozen: Tree, batch: Batch, direction: Tree | None, gate: Array | None
    ) -> tuple[Array, Array]:
        ones = jnp.ones(len(batch.tokens))

        def mean(params: Tree, weight: Array) -> Mean:
            return loss(params, frozen, batch._replace(weight=weight))[0]

        _, back = jax.vjp(lambda weight: mean(params, weight), ones)
        one, zero = jnp.ones(()), jnp.zeros(())
        (sums,), (counts,) = back(Mean(one, zero)), back(Mean(zero, one))
        counts = jax.lax.stop_gradient(counts)
        if direction is None or gate is None:
            return sums, counts

        def slope(weight: Array) -> Array:
            grads = jax.grad(lambda params: mean(params, weight).total)(params)
            return optax.tree.vdot(grads, direction)

        along = jax.lax.stop_gradient(jax.grad(slope)(ones))
        return sums + gate * along, counts

    return row_sums


def adapter_row_sums(
    graphdef: nnx.GraphDef, lora: LoraConfig, capacity: int | None = None, chunk: int = 64
) -> RowSums:
    """Of the cross-entropy of `steps.sft.sft_loss`, `params` being that LoRA.

    A decoder's structure holds no rank: the same one takes the three adapters.
    """

    def row_sums(
        params: Tree, frozen: Tree, batch: Batch, direction: Tree | None, gate: Array | None
    ) -> tuple[Array, Array]:
        columns = None
        if direction is not None and gate is not None:
            weights = jnp.stack([jnp.ones_like(gate), gate, gate], axis=1)
            columns = expert_gate([lora] * 3, weights)
            held = jax.lax.stop_gradient(params)
            params = joint_adapter([params, *tangents(held, direction)])
        model = merge(graphdef, params, frozen)
        hidden = model.hidden(batch.tokens, batch.positions, batch.segments, None, columns)
        scores = score_tokens(model.scorer(), hidden, batch.targets, batch.mask, capacity, chunk)
        return -(scores.log_probs * batch.mask).sum(axis=1), batch.mask.sum(axis=1)

    return row_sums


def tangents(adapter: Tree, direction: Tree) -> tuple[Tree, Tree]:
    """`(dA, B)` and `(A, dB)`, whose products sum to the change of `A B` along the direction."""

    def first(path: tuple, here: Array, there: Array) -> Array:
        return here if path[-1].key == "lora_b" else there

    def second(path: tuple, here: Array, there: Array) -> Array:
        return there if path[-1].key == "lora_b" else here

    map_both = jax.tree_util.tree_map_with_path
    return map_both(first, adapter, direction), map_both(second, adapter, direction)
