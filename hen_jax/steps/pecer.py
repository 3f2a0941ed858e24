"""PECER's step: the reply behind a prefix fused from history, personality and reactions."""

import jax.numpy as jnp
from flax import nnx

from hen_jax.core.types import Batch, Mean, Tree
from hen_jax.data.featured import FeaturedBatch
from hen_jax.models.decoder import Decoder, merge
from hen_jax.objectives.tokens import negative_log_likelihood, score_tokens
from hen_jax.steps.update import Loss, Metrics

PREFIX_PARAMS = "prefix"
"""Where the parameters of the prefix stand beside those of the decoder."""


def pecer_loss(graphdef: nnx.GraphDef, prefix: nnx.GraphDef, chunk: int = 64) -> Loss:
    """Cross-entropy of the last reply's tokens; a metric for each gate says how open it is."""

    def loss(params: Tree, frozen: Tree, batch: FeaturedBatch) -> tuple[Mean, Metrics]:
        rows = batch.batch
        own = {name: leaf for name, leaf in params.items() if name != PREFIX_PARAMS}
        model, fusion = merge(graphdef, own, frozen), nnx.merge(prefix, params[PREFIX_PARAMS])
        length = fusion.config.length
        soft, gates = fusion(history(model, rows, length), batch.traits, batch.reactions)
        hidden = model.hidden(rows.tokens, rows.positions, rows.segments, soft=soft)
        scores = score_tokens(model.scorer(), hidden, rows.targets, rows.mask, None, chunk)
        mean, metrics = negative_log_likelihood(scores, rows.mask, rows.weight)
        real = (rows.segments > 0).any(axis=1).astype(jnp.float32)
        told = {f"gate/{name}": Mean((x * real).sum(), real.sum()) for name, x in gates.items()}
        return mean, metrics | told

    return loss


def history(model: Decoder, rows: Batch, prefix: int) -> jnp.ndarray:
    """`[B, D]`: the mean vector of the tokens before the reply, the places of the prefix aside."""
    vectors = model.embedded(rows.tokens)
    place = jnp.arange(rows.tokens.shape[1])[None]
    begins = jnp.where(rows.mask > 0, place, rows.tokens.shape[1]).min(axis=1)[:, None]
    kept = (rows.segments > 0) & (place >= prefix) & (place <= begins)
    total = jnp.where(kept[..., None], vectors, 0.0).sum(axis=1)
    return total / jnp.maximum(kept.sum(axis=1, keepdims=True), 1)
