"""Supervised fine-tuning: the loss of the assistant's tokens."""

from flax import nnx

from hen_jax.core.types import Batch, Mean, RowLimits, Tree
from hen_jax.models.decoder import merge
from hen_jax.objectives.tokens import negative_log_likelihood, score_tokens
from hen_jax.steps.update import Loss, Metrics


def sft_loss(
    graphdef: nnx.GraphDef,
    capacity: int | None = None,
    chunk: int = 64,
    reach: RowLimits | None = None,
) -> Loss:
    """Cross-entropy of the targets where `batch.mask` is 1 (the SFT stage of HEN).

    `params` and `frozen` together are the decoder's leaves, however they are divided: adapter and
    base for LoRA, everything and `{}` for full fine-tuning. `capacity` is the most positions that a
    row trains (see `score_tokens`), `reach` bounds the documents of a row (see `Decoder.hidden`);
    a row beyond either gives NaN. On a uniform model the loss is ln V.
    """

    def loss(params: Tree, frozen: Tree, batch: Batch) -> tuple[Mean, Metrics]:
        model = merge(graphdef, params, frozen)
        hidden = model.hidden(batch.tokens, batch.positions, batch.segments, reach)
        scores = score_tokens(model.scorer(), hidden, batch.targets, batch.mask, capacity, chunk)
        return negative_log_likelihood(scores, batch.mask, batch.weight)

    return loss
