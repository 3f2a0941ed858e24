"""The head of a reward model: a number per document and output, read off its last token."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from hen_jax.core.types import Array
from hen_jax.models.config import DecoderConfig


class PositionScores(NamedTuple):
    """A score for each position, of which those where `last` is true count: one per document."""

    scores: Float[Array, "B T"]
    last: Bool[Array, "B T"]


class ScoreHead(nnx.Module):
    """A linear map from hidden states to a number or a few, without bias: transformers' `score`."""

    def __init__(self, key: PRNGKeyArray, config: DecoderConfig):
        kernel = jax.random.normal(key, (config.width, len(config.score_labels))) * 0.02
        self.kernel = nnx.Param(kernel, axes=("embed", "score"))

    def __call__(
        self, hidden: Float[Array, "B T D"], segments: Int[Array, "B T"]
    ) -> PositionScores:
        """Scores of the first output; `segments` are those that `hidden` was computed with."""
        return PositionScores(self.outputs(hidden)[..., 0], last_tokens(segments))

    def outputs(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T O"]:
        """All outputs in float32.

        Also under a bfloat16 trunk the product is in float32: scores of two replies differ by
        hundredths at first, which bfloat16 would round away.
        """
        kernel = self.kernel[...].astype(jnp.float32)
        exact = jax.lax.Precision.HIGHEST
        return jnp.matmul(hidden.astype(jnp.float32), kernel, precision=exact)


def last_tokens(segments: Int[Array, "B T"]) -> Bool[Array, "B T"]:
    """True at the last token of each document: segments `1 1 2 0` give `F T T F`."""
    following = jnp.pad(segments[:, 1:], [(0, 0), (0, 1)])
    return (segments > 0) & (segments != following)


def row_scores(scores: PositionScores) -> Float[Array, "B"]:
    """The score of each row that holds one document; the sum over its documents otherwise."""
    return jnp.where(scores.last, scores.scores, 0.0).sum(axis=1)


def document_scores(
    scores: PositionScores, segments: Int[Array, "B T"], documents: int
) -> Float[Array, "B K"]:
    """The score of each document of a row: of segment `k + 1` at place `k`; 0 where there is none.

    A row with more than `documents` documents scores NaN rather than leaving some out.
    """
    return document_outputs(scores.scores[..., None], segments, documents)[..., 0]


def document_outputs(
    outputs: Float[Array, "B T O"], segments: Int[Array, "B T"], documents: int
) -> Float[Array, "B K O"]:
    """`document_scores` of every output of the head."""
    own = segments[:, None] == jnp.arange(1, documents + 1)[None, :, None]  # [B, K, T]
    kept = (own & last_tokens(segments)[:, None])[..., None]
    found = jnp.where(kept, outputs[:, None], 0.0).sum(axis=2)
    return jnp.where(segments.max(axis=1)[:, None, None] > documents, jnp.nan, found)
