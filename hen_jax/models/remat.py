"""What the backward pass keeps of a block, and what it computes again."""

from collections.abc import Callable

import jax

from hen_jax.models.config import Execution
from hen_jax.models.layers import AFTER_ATTENTION
from hen_jax.models.products import KEPT, PRODUCT

PRODUCTS = jax.checkpoint_policies.save_only_these_names(PRODUCT)
"""Keeps what linear layers and attention give, forward and backward: for `InnerLoop.keep`."""


def rematerialised(block: Callable, execution: Execution) -> Callable:
    """`block` with the backward pass recomputing what `execution.remat` names."""
    policies = jax.checkpoint_policies
    match execution.remat:
        case "none":
            return block
        case "dots":
            keep = policies.save_from_both_policies(
                policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(KEPT)
            )
            return jax.checkpoint(block, policy=keep, prevent_cse=False)
        case "attention":
            keep = policies.save_only_these_names(AFTER_ATTENTION, KEPT)
            return jax.checkpoint(block, policy=keep, prevent_cse=False)
        case "block":
            return jax.checkpoint(block, prevent_cse=False)
