"""A meta-gradient that keeps the products of each inner gradient: the same, with fewer products."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import CONFIG, batch_of, documents, stirred

from hen_jax.core.trees import flatten
from hen_jax.meta.gradients import meta_gradient
from hen_jax.meta.inner import InnerLoop, descend
from hen_jax.meta.losses import mean_loss
from hen_jax.meta.mixflow import linearised
from hen_jax.models.config import LoraConfig
from hen_jax.models.decoder import Decoder, split
from hen_jax.models.remat import PRODUCTS
from hen_jax.steps.sft import sft_loss

# Wide enough for its products to be worth keeping, and no width is that of something else.
WIDE = dataclasses.replace(CONFIG, width=72, head_dim=34, mlp_width=104)
LORA = LoraConfig(rank=3, alpha=6.0, targets=("q", "down"))
MODEL = split(Decoder(jax.random.key(0), WIDE, LORA))
THETA = stirred(MODEL.adapter)
RATES = jax.tree.map(lambda _: jnp.float32(0.1), THETA)


@functools.cache
def program(keep):
    sft = sft_loss(MODEL.graphdef)
    loss = mean_loss(lambda theta, _, batch: sft(theta, MODEL.base, batch))
    meta = meta_gradient(InnerLoop(loss, descend, 2, keep=keep), loss)
    rows = [batch_of([[one] for one in documents([9, 7], seed)], 12) for seed in range(3)]
    batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows[:2])
    return jax.jit(lambda theta, rates: meta(theta, rates, batches, rows[2])[1:3]).lower(
        THETA, RATES
    )


@pytest.mark.slow  # three programs of the whole inner loop
def test_the_meta_gradient_is_the_same():
    plain, kept = (program(keep).compile()(THETA, RATES) for keep in (None, PRODUCTS))
    for path, leaf in flatten(plain[0]).items():
        np.testing.assert_allclose(flatten(kept[0])[path], leaf, rtol=1e-4, atol=1e-6, err_msg=path)
    np.testing.assert_allclose(*(jax.tree.leaves(found[1]) for found in (kept, plain)), rtol=1e-3)


def test_a_frozen_kernel_is_passed_six_times_and_not_eight():
    """Per program text, in which the inner loop stands once: forward, backward and their tangents
    of a support batch, forward and backward of the query; eight, as the jvp repeats two."""

    def passes(keep) -> int:
        # Only the kernel of `down` has this shape.
        kernel = f"tensor<{WIDE.mlp_width}x{WIDE.width}xf32>"
        return len(re.findall(rf"dot_general[^\n]*{kernel}\)", program(keep).as_text()))

    assert passes(None) == 8
    assert passes(PRODUCTS) == 6


def test_logits_of_a_single_chunk_are_computed_once():
    def passes(keep) -> int:
        matrix = f"tensor<{WIDE.vocab_size}x{WIDE.width}xf32>"
        return len(re.findall(rf"dot_general[^\n]*{matrix}\)", program(keep).as_text()))

    assert passes(PRODUCTS) == 6 < passes(None)


def test_attention_is_not_passed_back_again_for_its_cotangents():
    """What remains are the scores and their cotangent, which the tangents need."""

    def products(keep) -> int:
        return len(re.findall(r"dot_general[^\n]*batching_dims", program(keep).as_text()))

    assert products(PRODUCTS) <= products(None) - 3


def test_what_is_frozen_is_not_kept_once_per_inner_step():
    """`MODEL.base` is closed over here, and an argument of the loop in a run."""
    text = program(PRODUCTS).as_text()
    for leaf in flatten(MODEL.base).values():
        if leaf.ndim > 1:
            assert f"tensor<2x{'x'.join(map(str, leaf.shape))}xf32>" not in text


def test_a_copy_of_a_frozen_matrix_among_the_kept_is_an_error():
    def loss(theta, given):
        return jnp.sin(theta @ (given["w"] * 1.0)).sum()

    def kept(theta, w):
        given = {"w": w}
        everything = jax.checkpoint_policies.everything_saveable
        return linearised(loss, theta, given, given, everything)[0]

    with pytest.raises(AssertionError, match="copies of frozen matrices"):
        jax.eval_shape(kept, jnp.ones(3), jnp.ones((3, 4)))
