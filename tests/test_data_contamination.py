"""What stands beside a document in a packed row never reaches its loss."""

import dataclasses
import functools

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import CONFIG, batch_of, documents, tiny

from hen_jax.data.packing import pack
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
