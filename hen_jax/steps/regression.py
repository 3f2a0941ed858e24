"""Rating models: the loss of ratings under a sigmoid head."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from hen_jax.core.types import Array, Mean, RowLimits, Tree
from hen_jax.data.rated_batches import RatedBatch
from hen_jax.models.decoder import merge
from hen_jax.objectives.regression import rating_loss
from hen_jax.steps.update import Loss, Metrics


def regression_loss(graphdef: nnx.GraphDef, reach: RowLimits | None = None) -> Loss:
    """Mean squared error of ratings in [0, 1] (the generic reward model of the expert adapters).

    The batch is a `RatedBatch`, and the decoder's score head has an output for each of its targets.
    `reach` as in `Decoder.hidden`; a row beyond it gives NaN.
    """

    def loss(params: Tree, frozen: Tree, batch: RatedBatch) -> tuple[Mean, Metrics]:
        logits = rating_logits(graphdef, params, frozen, batch, reach)
        return rating_loss(logits, batch.targets, batch.known)

    return loss


def rating_logits(
    graphdef: nnx.GraphDef,
    params: Tree,
    frozen: Tree,
    batch: RatedBatch,
    reach: RowLimits | None = None,
) -> Float[Array, "B K O"]:
    """The head's outputs at the marks of each row, in float32; their sigmoid is the rating."""
    model = merge(graphdef, params, frozen)
    rows = batch.batch
    hidden = model.hidden(rows.tokens, rows.positions, rows.segments, reach)
    assert model.score is not None, "the decoder needs config.score_head"
    at_marks = jnp.take_along_axis(hidden, batch.marks[..., None], axis=1)
    return model.score.outputs(at_marks)
