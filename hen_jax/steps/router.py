"""A router's head: softmax regression on vectors that the frozen base has made once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from hen_jax.adapters.router import route_logits
from hen_jax.core.types import Array, Mean, Tree
from hen_jax.steps.update import Loss, Metrics

HEAD = "router"
"""The key of the head in a tree of parameters."""


class Routed(NamedTuple):
    """Conversations as the head sees them."""

    features: Array  # [B, D] float32, standardised over those that train
    labels: Array  # [B] int32: the expert


def router_head(key: PRNGKeyArray, width: int, experts: int) -> dict[str, Tree]:
    """Zeros: a softmax regression has one optimum, whatever it begins with."""
    kernel = jnp.zeros((width, experts), jnp.float32)
    return {HEAD: {"kernel": kernel, "bias": jnp.zeros(experts, jnp.float32)}}


def router_loss(ridge: float) -> Loss:
    """Mean cross-entropy of the expert, with `ridge / 2` times the squared kernel beside it."""

    def loss(params: Tree, frozen: Tree, batch: Routed) -> tuple[Mean, Metrics]:
        head = params[HEAD]
        logits = route_logits(batch.features, head["kernel"], head["bias"])
        rows = jnp.float32(len(batch.labels))
        log_probs = jax.nn.log_softmax(logits)
        own = jnp.take_along_axis(log_probs, batch.labels[:, None], axis=1)[:, 0]
        right = (logits.argmax(axis=1) == batch.labels).astype(jnp.float32)
        drawn = rows * ridge / 2 * jnp.sum(head["kernel"] ** 2)
        return Mean(drawn - own.sum(), rows), {"accuracy": Mean(right.sum(), rows)}

    return loss
