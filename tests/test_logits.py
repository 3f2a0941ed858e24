"""Tokens are drawn as documented: every filter and penalty against a plain numpy reading of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hen_jax.core.errors import InputError
from hen_jax.sampling.cuts import LEADING, SHORT, top_k_mask, top_p_mask
from hen_jax.sampling.logits import (
    PROMPT,
    REPLY,
    Sampling,
    categorical,
    draw,
    row_sampling,
    shape_logits,
)

V = 301
ROWS = [
    Sampling(temperature=0.0),
    Sampling(temperature=0.7, top_k=5),
    Sampling(top_p=0.6),
    Sampling(temperature=2.0, top_k=70, top_p=0.5),
    Sampling(min_p=0.1),
    Sampling(temperature=0.9, top_k=500, top_p=0.999, min_p=0.02),
    Sampling(top_p=1e-6),
    Sampling(temperature=0.0, repetition_penalty=1.3, presence_penalty=0.7),
    Sampling(1.5, 0, 0.9, 0.0, 0.8, -0.5, ((3, 4.0), (300, -2.0))),
    Sampling(),
]


def shaped_by_hand(logits: np.ndarray, marks: np.ndarray, sampling: Sampling) -> np.ndarray:
    """One row in float64, with sorts: what `Sampling` says, step by step."""
    row = logits.astype(np.float64)
    for token, value in sampling.logit_bias:
        row[token] += value
    factor = sampling.repetition_penalty
    row = np.where(marks > 0, np.where(row < 0, row * factor, row / factor), row)
    row = row - sampling.presence_penalty * (marks >= REPLY)
    if sampling.temperature == 0:
        return row
    row = row / sampling.temperature
    order = np.argsort(-row)[: sampling.top_k or None]
    probs = np.exp(row[order] - row.max())
    if sampling.top_p < 1:
        order = order[: (np.cumsum(probs / probs.sum()) < sampling.top_p).sum() + 1]
    order = order[np.exp(row[order] - row.max()) >= sampling.min_p]
    return np.where(np.isin(np.arange(len(row)), order), row, -np.inf)


def test_every_row_is_shaped_by_its_own_settings():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(len(ROWS), V)).astype(np.float32) * 3
    marks = rng.integers(0, 4, (len(ROWS), V)).astype(np.uint8)
    assert (PROMPT, REPLY) == (1, 2)
    found = jax.jit(shape_logits)(logits, row_sampling(ROWS, 2), marks)
    for row, sampling in enumerate(ROWS):
        wanted = shaped_by_hand(logits[row], marks[row], sampling)
        np.testing.assert_allclose(found[row], wanted, rtol=1e-5, atol=1e-5)


LARGE = LEADING * SHORT + 37
FEW = [Sampling(top_k=1), Sampling(top_k=200), Sampling(top_p=0.5), Sampling(top_k=90, top_p=0.7)]
MANY = [Sampling(top_k=400), Sampling(top_k=LARGE - 1), Sampling(1e3, 0, 0.9), Sampling(top_k=3)]


@pytest.mark.parametrize("rows", [FEW, MANY], ids=["among the leading blocks", "among all"])
def test_large_vocabularies_are_cut_where_a_sort_would_cut_them(rows):
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(len(rows), LARGE)).astype(np.float32) * 3
    logits[:, :40] += 9  # neighbours in a block
    nothing = np.zeros((len(rows), LARGE), np.uint8)
    found = jax.jit(shape_logits)(logits, row_sampling(rows, 0), nothing)
    for row, sampling in enumerate(rows):
        wanted = shaped_by_hand(logits[row], nothing[row], sampling)
        np.testing.assert_array_equal(np.isfinite(found[row]), np.isfinite(wanted))


def test_ties_beyond_the_leading_blocks_are_kept():
    tied = jnp.zeros((1, LARGE)).at[0, 5].set(1.0)
    assert int(top_k_mask(tied, jnp.asarray([2])).sum()) == LARGE
    assert int(top_k_mask(tied, jnp.asarray([1])).sum()) == 1


def test_ties_are_kept_and_worked_examples_hold():
    tied = jnp.asarray([[0.0, 2.0, 2.0, -1.0]])
    assert top_k_mask(tied, jnp.asarray([1])).tolist() == [[False, True, True, False]]
    logits = jnp.log(jnp.asarray([[0.5, 0.3, 0.15, 0.05]]))
    assert int(top_p_mask(logits, jnp.asarray([0.83])).sum()) == 3
    both = shape_logits(
        logits, row_sampling([Sampling(top_k=3, top_p=0.83)], 0), jnp.zeros((1, 4), jnp.uint8)
    )
    assert np.isfinite(both).sum() == 2
    three = jnp.asarray([[1.0, 0.0, -1.0]])
    enough = jax.nn.softmax(three)[:, 0]  # exactly: the first alone sums to `top_p`
    assert top_p_mask(three, enough).tolist() == [[True, False, False]]


@pytest.mark.parametrize("top_p", [1e-45, 1e-40, 1e-12])
def test_the_least_top_p_keeps_the_likeliest(top_p):
    kept = top_p_mask(jnp.asarray([[1.0, 3.0, 2.0]]), jnp.asarray([top_p]))
    assert kept.tolist() == [[False, True, False]]


def test_draws_follow_the_shaped_distribution():
    """Chi-square over 20,000 draws, of more tokens than one block holds; of one cut off, none."""
    logits = np.random.default_rng(1).normal(size=V).astype(np.float32) * 2
    logits[[7, 200]] = -np.inf
    count = 20_000
    uniforms = jax.random.uniform(jax.random.key(0), (count, 2))
    drawn = np.asarray(jax.jit(categorical)(jnp.broadcast_to(logits, (count, V)), uniforms))
    expected = np.exp(logits - logits.max()).astype(np.float64)
    expected *= count / expected.sum()
    seen = np.bincount(drawn, minlength=V)
    assert seen[7] == seen[200] == 0
    often = expected > 5
    rest = [a[~often].sum() for a in (seen, expected)]
    pairs = [np.append(a[often], b) for a, b in zip((seen, expected), rest, strict=True)]
    assert stats.chisquare(*pairs).pvalue > 1e-3


def test_the_ends_of_the_uniform_numbers_draw_something_that_can_be_drawn():
    logits = jnp.where(jnp.arange(V) % 2 == 0, 0.0, -jnp.inf)[None].repeat(2, 0)
    almost = np.nextafter(np.float32(1), np.float32(0))
    drawn = categorical(logits, jnp.asarray([[0.0, 0.0], [almost, almost]]))
    assert drawn.tolist() == [0, 300]


def test_a_token_is_as_probable_as_it_was_where_it_was_drawn():
    logits = np.random.default_rng(0).normal(size=(2, V)).astype(np.float32)
    marks = jnp.zeros((2, V), jnp.uint8)
    rows = row_sampling([Sampling(temperature=0.0), Sampling(temperature=2.0, top_k=9)], 0)
    drawn = draw(jnp.asarray(logits), rows, marks, jnp.full((2, 2), 0.4))
    assert int(drawn.tokens[0]) == logits[0].argmax()
    own = np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(drawn.log_probs, own[[0, 1], drawn.tokens], atol=1e-6)
    best = np.sort(logits[1] / 2)[-9:]
    wanted = logits[1, int(drawn.tokens[1])] / 2 - np.log(np.exp(best).sum())
    np.testing.assert_allclose(drawn.sampling_log_probs, [0, wanted], atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("presence_penalty", float("nan")),
        ("logit_bias", ((-1, 1.0),)),
        ("logit_bias", ((1, float("inf")),)),
    ],
)
def test_bad_settings_are_refused_with_the_remedy(field, value):
    with pytest.raises(InputError, match=f"{field} .*; give"):
        Sampling(**{field: value})
