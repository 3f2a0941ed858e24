"""Low-rank adapters of several experts side by side in one decoder, chosen row by row.

`x [A_1 .. A_E]`, times a factor for each column, then `[B_1; ..; B_E]`: two dense products whatever
the number of experts. The factor is the scale of the row's own expert in its columns and 0 in the
others'. A row of no expert has all zeros, which is the base; a soft mixture has weights.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Tree
from hen_jax.models.config import LoraConfig
from hen_jax.models.layers import Gate

NOBODY = -1
"""The expert of a row that the base answers."""


def joint_lora(experts: Mapping[str, LoraConfig]) -> LoraConfig:
    """What the decoder is built with: the sum of the ranks. Each expert's scale is in the gate.

    Raises:
      InputError: no expert, or experts with other targets.
    """
    if not experts:
        raise InputError("no expert; name at least one in config.experts")
    targets = {lora.targets for lora in experts.values()}
    if len(targets) > 1:
        raise InputError(
            f"the experts differ in their targets ({' and '.join(map(repr, sorted(targets)))}); "
            "give all the same"
        )
    rank = sum(lora.rank for lora in experts.values())
    return LoraConfig(rank, float(rank), targets.pop())


def joint_adapter(experts: Sequence[Tree]) -> Tree:
    """One adapter of their `lora_a [L, in, R_e]` and `lora_b [L, R_e, out]`, in their order."""

    def beside(path: tuple, *leaves: Array) -> Array:
        return jnp.concatenate(leaves, axis=1 if path[-1].key == "lora_b" else 2)

    first, *others = experts
    return jax.tree_util.tree_map_with_path(beside, first, *others)


def expert_gate(experts: Sequence[LoraConfig], weights: Float[Array, "B E"]) -> Gate:
    """The factor on each column of `x A`: the row's weight of the column's expert, times its scale.

    Ranks 2 and 1 with scales 3 and 5 make of the weights `[1, 0]` the gate `[3, 3, 0]`.
    """
    ranks = [lora.rank for lora in experts]
    scales = np.repeat([lora.scale for lora in experts], ranks).astype(np.float32)
    return (
        jnp.repeat(weights, np.asarray(ranks), axis=1, total_repeat_length=sum(ranks)) * scales
    )[:, None]


def one_hot(expert: Int[Array, "B"], number: int) -> Float[Array, "B E"]:
    """All weight on each row's expert; none at all where it is `NOBODY`."""
    return jax.nn.one_hot(expert, number)
