"""Regression of ratings: squared error of a sigmoid, over what was rated.

`sigmoid(0) = 0.5`, so a head that says 0 of everything loses `(0.5 - y)^2`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from hen_jax.core.types import Array, Mean


def rating_loss(
    logits: Float[Array, "B K O"], targets: Float[Array, "B K O"], known: Float[Array, "B K O"]
) -> tuple[Mean, dict[str, Mean]]:
    """`mean (sigmoid(logit) - target)^2`: over the known outputs of a place, then over places.

    A place whose reader rated three of seven dimensions counts as much as one with all seven; one
    without any counts nothing, whatever its logits are.

    Returns:
      The mean squared error, which for the constant best predictor is the variance of the targets,
      and the metrics `mae` and `rating` (the mean predicted rating).
    """
    predicted = jax.nn.sigmoid(logits)
    rated = known.sum(axis=2)
    share = known / jnp.where(rated > 0, rated, 1.0)[..., None]
    places = (rated > 0).sum().astype(jnp.float32)

    def mean(values: Array) -> Mean:
        return Mean(jnp.where(share > 0, share * values, 0.0).sum(), places)

    error = predicted - targets
    return mean(error**2), {"mae": mean(jnp.abs(error)), "rating": mean(predicted)}
