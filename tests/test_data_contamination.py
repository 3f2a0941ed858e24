"""What stands beside a document in a packed row never reaches its loss."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import CONFIG, batch_of, documents, stirred, tiny

from hen_jax.core.trees import flatten
from hen_jax.data.packing import pack, pack_row
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.steps.sft import sft_loss

ROW = 24
MODEL = tiny()


@functools.cache
def loss():
    compute = sft_loss(MODEL.graphdef, chunk=8)
    return jax.jit(lambda batch: compute(MODEL.base, {}, batch)[0])


def only(batch, segment: int):
    return batch._replace(mask=batch.mask * (batch.segments == segment))


@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.integers(2, 8), min_size=2, max_size=3),
    st.integers(0, 99),
    st.integers(1, CONFIG.vocab_size - 1),
)
def test_changing_document_b_never_changes_document_a_s_loss(lengths, seed, shift):
    ours = documents(lengths, seed)
    (a, b, *rest) = ours
    other = dataclasses.replace(b, tokens=(b.tokens + shift) % CONFIG.vocab_size)
    for place, order in {1: [a, b, *rest], 2: [b, a, *rest]}.items():
        changed = [other if one is b else one for one in order]
        before = loss()(only(batch_of([order], ROW), place))
        after = loss()(only(batch_of([changed], ROW), place))
        assert (float(before.total), float(before.count)) == (
            float(after.total),
            float(after.count),
        )


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(2, ROW), min_size=1, max_size=8), st.integers(0, 99))
def test_a_packed_set_has_the_loss_of_its_documents_one_by_one(lengths, seed):
    ours = documents(lengths, seed)
    rows = [[ours[index] for index in row] for row in pack([one.length for one in ours], ROW)]
    packed = [loss()(batch_of([row], ROW)) for row in rows]
    alone = [loss()(batch_of([[one]], ROW)) for one in ours]
    assert sum(float(one.count) for one in packed) == sum(float(one.count) for one in alone)
    np.testing.assert_allclose(
        sum(float(one.total) for one in packed), sum(float(one.total) for one in alone), rtol=1e-5
    )


OPENING = 5


def with_one_opening(lengths: list[int], seed: int):
    """Documents whose first tokens are the same; none of these trains."""
    first, *rest = documents(lengths, seed)
    same = first.tokens[:OPENING]
    return [
        first,
        *(dataclasses.replace(x, tokens=np.concatenate([same, x.tokens[OPENING:]])) for x in rest),
    ]


def sharing(examples, row_length: int):
    row = pack_row(examples, row_length, OPENING)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], row)


@pytest.mark.parametrize("attention", ["xla", "chunked"])
def test_documents_that_share_an_opening_train_as_they_do_alone(attention):
    model = tiny(LoraConfig(rank=3, alpha=6.0), Execution(attention=attention))
    compute = sft_loss(model.graphdef, chunk=8)

    @jax.jit
    def total(adapter, batch):
        return compute(adapter, model.base, batch)[0].total

    adapter, ours = stirred(model.adapter), with_one_opening([14, 10, 12], 3)
    together = jax.value_and_grad(total)(adapter, sharing(ours, 30))
    alone = [jax.value_and_grad(total)(adapter, batch_of([[one]], 30)) for one in ours]
    np.testing.assert_allclose(together[0], sum(value for value, _ in alone), rtol=1e-5)
    summed = flatten(jax.tree.map(lambda *leaves: sum(leaves), *(found for _, found in alone)))
    for path, leaf in flatten(together[1]).items():
        np.testing.assert_allclose(leaf, summed[path], rtol=1e-4, atol=1e-5, err_msg=path)


def test_what_follows_a_shared_opening_stays_apart():
    a, b, c = with_one_opening([12, 10, 14], 5)
    own = np.arange(len(b.tokens)) >= OPENING
    other = dataclasses.replace(b, tokens=(b.tokens + own) % CONFIG.vocab_size)
    for place, (before, after) in {
        1: ((a, b, c), (a, other, c)),
        2: ((b, a, c), (other, a, c)),
    }.items():
        one, two = (loss()(only(sharing(row, 32), place)) for row in (before, after))
        assert float(one.total) == float(two.total)
    assert float(loss()(sharing((a, b, c), 32)).total) != float(
        loss()(sharing((a, other, c), 32)).total
    )
