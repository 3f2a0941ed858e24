"""The scalar head of a reward model: one number per document, read off its last token."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from hen_jax.core.types import Array
from hen_jax.models.config import DecoderConfig


class Scores(NamedTuple):
    """A score for each position, of which those where `last` is true count: one per document."""

    scores: Float[Array, "B T"]
    last: Bool[Array, "B T"]


class ScoreHead(nnx.Module):
    """A linear map from hidden states to one number, without bias: transformers' `score`."""

    def __init__(self, key: PRNGKeyArray, config: DecoderConfig):
        kernel = jax.random.normal(key, (config.width, 1)) * 0.02
        self.kernel = nnx.Param(kernel, axes=("embed", "score"))

    def __call__(self, hidden: Float[Array, "B T D"], segments: Int[Array, "B T"]) -> Scores:
        """Scores in float32; `segments` are those that `hidden` was computed with."""
        kernel = self.kernel[...].astype(hidden.dtype)
        scores = jnp.matmul(hidden, kernel, preferred_element_type=jnp.float32)[..., 0]
        return Scores(scores, last_tokens(segments))


def last_tokens(segments: Int[Array, "B T"]) -> Bool[Array, "B T"]:
    """True at the last token of each document: segments `1 1 2 0` give `F T T F`."""
    following = jnp.pad(segments[:, 1:], [(0, 0), (0, 1)])
    return (segments > 0) & (segments != following)


def row_scores(scores: Scores) -> Float[Array, "B"]:
    """The score of each row that holds one document; the sum over its documents otherwise."""
    return jnp.where(scores.last, scores.scores, 0.0).sum(axis=1)
