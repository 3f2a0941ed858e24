"""What a preference step is compiled for: one policy, or the experts whose rows a batch holds."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from hen_jax.adapters.experts import expert_gate, joint_adapter, one_hot
from hen_jax.core.types import Array, Tree
from hen_jax.data.preference_batches import PreferenceBounds, Weighed, WeighedBounds
from hen_jax.models.config import LoraConfig
from hen_jax.steps.preference_config import PreferenceConfig
from hen_jax.steps.reply_scores import ReplyScoring, reply_sums

BASE, REFERENCE = "base", "reference"
"""Where the frozen tree of a run that keeps its reference holds the two."""


def with_reference(needed: bool, params: Tree, frozen: Tree) -> Tree:
    """What does not train, with the policy at the start beside it where it is the reference."""
    return {BASE: frozen, REFERENCE: params} if needed else frozen


class PreferencePlan(NamedTuple):
    """What a preference step is compiled for."""

    graphdef: nnx.GraphDef
    bounds: PreferenceBounds
    config: PreferenceConfig
    chunk: int = 64  # positions per row that meet the vocabulary at a time
    experts: Mapping[str, LoraConfig] = {}  # side by side: `params` is {name: adapter}; none: one

    @property
    def scoring(self) -> ReplyScoring:
        """How replies are scored."""
        return ReplyScoring(self.graphdef, self.chunk, self.config.values.tail)

    def owners(self, rows: Weighed) -> Float[Array, "B G"]:
        """1 where a row is of an expert; of a single policy a column of ones."""
        if not self.experts:
            return jnp.ones((len(rows.weights), 1))
        return one_hot(rows.batch.expert, len(self.experts))

    def sums(
        self, bounds: WeighedBounds, rows: Weighed, params: Tree, base: Tree
    ) -> Float[Array, "B K J"]:
        """`reply_sums`, of each row under its own expert."""
        if not self.experts:
            return reply_sums(self.scoring, bounds, rows, params, base)
        gate = expert_gate(list(self.experts.values()), self.owners(rows))
        joint = joint_adapter([params[name] for name in self.experts])
        return reply_sums(self.scoring, bounds, rows, joint, base, gate=gate)
