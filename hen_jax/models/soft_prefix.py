"""A soft prefix: vectors in place of tokens, fused from several sources through gates (PECER).

After Cai et al. (PECER): dialogue history, personality and emotional reactions are fused into the
generator. Which fusion they use is not public; gates and a prefix are ours.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, PRNGKeyArray

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, check_ranges

_SOURCES = ("history", "personality", "reaction")


@dataclasses.dataclass(frozen=True)
class PrefixConfig:
    """Sizes, and which sources are fused: one left out is an ablation.

    Raises:
      InputError: a number out of range, or no such source.
    """

    length: Count = 4  # vectors in front of each conversation
    hidden: Count = 32  # width of the gates' hidden layer
    sources: tuple[str, ...] = _SOURCES  # what is fused; one left out is an ablation

    def __post_init__(self):
        check_ranges(self)
        if not self.sources or not set(self.sources) <= set(_SOURCES):
            raise InputError(f"sources {self.sources!r}; allowed: some of {', '.join(_SOURCES)}")


class SoftPrefix(nnx.Module):
    """From a vector of each source to a prefix, and the gates that were open for it."""

    def __init__(
        self, key: PRNGKeyArray, config: PrefixConfig, width: int, traits: int, reactions: int
    ):
        keys = iter(jax.random.split(key, 2 * len(_SOURCES) + 1))
        sizes = dict(zip(_SOURCES, (width, traits, reactions), strict=True))
        self.config, self.width, F = config, width, config.hidden

        def matrix(inputs: int, outputs: int) -> nnx.Param:
            kernel = jax.random.normal(next(keys), (inputs, outputs)) * inputs**-0.5
            return nnx.Param(kernel)

        self.inner = nnx.data({name: matrix(sizes[name], F) for name in _SOURCES})
        self.gate = nnx.data({name: matrix(len(_SOURCES) * F, F) for name in _SOURCES})
        outer = jax.random.normal(next(keys), (F, config.length * width)) * 0.02
        self.outer = nnx.Param(outer)

    def __call__(
        self,
        history: Float[jax.Array, "B D"],
        personality: Float[jax.Array, "B I"],
        reaction: Float[jax.Array, "B J"],
    ) -> tuple[Float[jax.Array, "B P D"], dict[str, Float[jax.Array, "B"]]]:
        """The prefix, and of each source how open its gates are on average, from 0 to 1.

        `sum over sources of sigmoid(W_g [h; p; r]) * tanh(W x)`, then one matrix. A source that is
        left out is 0, and so is its gate.
        """
        given = dict(zip(_SOURCES, (history, personality, reaction), strict=True))
        used = self.config.sources
        each = {
            name: jnp.tanh(x @ self.inner[name][...]) * (name in used) for name, x in given.items()
        }
        whole = jnp.concatenate(list(each.values()), axis=-1)
        gates = {name: jax.nn.sigmoid(whole @ self.gate[name][...]) for name in used}
        fused = sum((gates[name] * each[name] for name in used), jnp.zeros_like(each[_SOURCES[0]]))
        prefix = (fused @ self.outer[...]).reshape(len(fused), self.config.length, self.width)
        return prefix, {name: gates[name].mean(axis=-1) for name in used}
