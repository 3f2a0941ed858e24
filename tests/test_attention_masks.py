"""Who may look at whom, and what is seen: plain, chunked and cached attention against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from hen_jax.core.types import SHARED
from hen_jax.models import cache
from hen_jax.models.attention import attend_chunked
from hen_jax.models.dot_product import attend, causal_segment_mask

# A shared prefix, documents, padding; and a row without a prefix.
SEGMENTS = np.array([[SHARED, SHARED, 1, 1, 2, 2, 0], [1, 1, 1, 1, 2, 0, 0]])
T, N, K, H = SEGMENTS.shape[1], 4, 2, 6


def sees(row: np.ndarray, t: int, s: int, window: int | None) -> bool:
    """The rule in words: the same segment or the prefix, not later, not beyond the window."""
    if s > t or (window is not None and t - s >= window):
        return False
    return bool(row[s] == row[t] or (row[t] > 0 and row[s] == SHARED))


def mask_of(window: int | None) -> np.ndarray:
    return np.array(
        [[[sees(row, t, s, window) for s in range(T)] for t in range(T)] for row in SEGMENTS]
    )


def attended(q, k, v, mask, scale, softcap):
    """Softmax attention in float64; query head `n` reads key head `n // (N / K)`."""
    k, v = (np.repeat(x, N // K, axis=2) for x in (k, v))
    scores = np.einsum("btnh,bsnh->bnts", q, k).astype(np.float64) * scale
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    weights = np.where(mask[:, None], np.exp(scores), 0.0)
    return np.einsum("bnts,bsnh->btnh", weights / weights.sum(-1, keepdims=True), v)


def qkv():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, T, heads, H)).astype(np.float32) for heads in (N, K, K)]


@pytest.mark.parametrize("window", [None, 1, 2, 3, T, T + 1])
def test_the_mask_is_the_rule_for_every_pair(window):
    found = causal_segment_mask(jnp.asarray(SEGMENTS), window)
    np.testing.assert_array_equal(found[:, 0], mask_of(window))


@pytest.mark.parametrize(("window", "softcap"), [(None, None), (3, None), (2, 0.7)])
def test_plain_and_chunked_attention_are_the_softmax_over_what_is_seen(window, softcap):
    q, k, v = qkv()
    mask, segments = mask_of(window), jnp.asarray(SEGMENTS)
    wanted = attended(q, k, v, mask, 0.3, softcap)
    plain = attend(*map(jnp.asarray, (q, k, v)), jnp.asarray(mask)[:, None], 0.3, softcap)
    np.testing.assert_allclose(plain, wanted, atol=1e-5)
    for chunk in (2, 3):
        found = attend_chunked(
            *map(jnp.asarray, (q, k, v)), segments, window, 0.3, softcap, chunk=chunk
        )
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_scores_are_divided_by_the_root_of_the_head_width_where_nothing_is_said():
    q, k, v = qkv()
    mask = mask_of(None)
    found = attend(*map(jnp.asarray, (q, k, v)), jnp.asarray(mask)[:, None])
    np.testing.assert_allclose(found, attended(q, k, v, mask, H**-0.5, None), atol=1e-5)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (3, 0.7), (1, None)])
def test_a_cached_query_sees_the_valid_slots_of_its_window(apart, window, softcap):
    q, k, v = qkv()
    # Row 0 is padded by two slots at the left; five slots hold the prompt, the sixth is written.
    valid = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], bool)
    kept = cache.init_cache(*(jnp.asarray(x[None, :, :5]) for x in (k, v)), jnp.asarray(valid), T)
    kept = cache.with_next_slot_valid(cache.unstack_cache(kept) if apart else kept)
    new = [jnp.asarray(x[:, 5:6]) for x in (k, v)]
    if apart:
        layer = cache.append(kept.layers[0], *new, kept.slot)
    else:
        whole = cache.append(kept.layers, *new, kept.slot, (jnp.int32(0),))
        layer = cache.LayerCache(whole.keys[0], whole.values[0])
    seen = cache.within_window(kept, window)
    mask = np.array([[s <= 5 and 5 - s < (window or T) and (b or s > 1) for s in range(T)]
                     for b in range(2)])  # fmt: skip
    np.testing.assert_array_equal(seen, mask)
    found = cache.attend_cached(jnp.asarray(q[:, 5:6]), layer, seen, 0.3, softcap)
    wanted = attended(q[:, 5:6], k, v, mask[:, None], 0.3, softcap)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_repeated_row_stands_beside_itself():
    _, k, v = qkv()
    valid = jnp.asarray([[False, True], [True, True]])
    kept = cache.init_cache(*(jnp.asarray(x[None, :, :2]) for x in (k, v)), valid, 3)
    twice = cache.repeat_rows(kept, 2)
    np.testing.assert_array_equal(twice.layers.keys[0], np.repeat(kept.layers.keys[0], 2, axis=0))
    np.testing.assert_array_equal(
        twice.layers.values[0], np.repeat(kept.layers.values[0], 2, axis=0)
    )
    np.testing.assert_array_equal(twice.valid[:, :2], [[0, 1], [0, 1], [1, 1], [1, 1]])
