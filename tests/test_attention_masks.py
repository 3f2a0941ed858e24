"""Who may look at whom, and what is seen: plain, chunked and cached attention against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hen_jax.core.types import SHARED
from hen_jax.models import cache
from hen_jax.models.attention import attend_chunked
from hen_jax.models.dot_product import attend, causal_segment_mask
from hen_jax.models.products import float32_product

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


@pytest.mark.parametrize(("window", "softcap"), [(None, None), (3, 0.7), (1, None)])
def test_a_cached_query_sees_what_its_row_holds_and_what_came_lately(window, softcap):
    q, k, v = qkv()
    # The cache holds four tokens of row 0 and three of row 1; two more of each are written lately,
    # and at the cache's other places and at the third recent one stands what nobody may see.
    lengths = np.array([4, 3])
    held = cache.LayerCache(jnp.full((2, K, H, 5), 9.0), jnp.full((2, K, 5, H), 9.0))
    given = [
        np.where(np.arange(T)[None, :, None, None] < lengths[:, None, None, None], x, 9.0)
        for x in (k, v)
    ]
    first = cache.append(held, *(jnp.asarray(x[:, :5]) for x in given), jnp.int32(0))
    at = lengths[:, None] + np.arange(2)
    new = [jnp.asarray(np.take_along_axis(x, at[:, :, None, None], 1)) for x in (k, v)]
    recent = cache.LayerCache(jnp.full((2, K, H, 3), 9.0), jnp.full((2, K, 3, H), 9.0))
    recent = cache.append(recent, *new, jnp.int32(0))
    positions = jnp.asarray(np.append(at, [[cache.NOWHERE]] * 2, axis=1))
    kept = cache.Cache(first, jnp.asarray(lengths))
    seen = cache.seen_places(jnp.asarray(at), positions, kept, window)
    queries = np.take_along_axis(q, at[:, :, None, None], 1)
    found = cache.attend_cached(jnp.asarray(queries), first, recent, seen, 0.3, softcap)
    mask = np.array(
        [[[s <= t and t - s < (window or T) for s in range(T)] for t in row] for row in at]
    )
    wanted = attended(queries, k, v, mask, 0.3, softcap)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stacked", [False, True])
def test_rows_are_written_where_they_belong_and_nowhere_else(stacked, dtype):
    rng = np.random.default_rng(0)
    shape = (2,) * stacked
    old = cache.LayerCache(
        rng.normal(size=(*shape, 3, K, H, 6)), rng.normal(size=(*shape, 3, K, 6, H))
    )
    new = cache.LayerCache(
        rng.normal(size=(*shape, 3, K, H, 2)), rng.normal(size=(*shape, 3, K, 2, H))
    )
    old, new = jax.tree.map(lambda x: jnp.asarray(x, dtype), (old, new))
    # Row 0 of the new goes to row 2 from place 1 on; the others have no row, or no place.
    found = cache.write_cache_rows(old, new, jnp.asarray([2, 3, 0]), jnp.asarray([1, 0, 5]))
    keys, values = np.array(old.keys), np.array(old.values)
    keys[..., 2, :, :, 1:3], values[..., 2, :, 1:3, :] = (
        new.keys[..., 0, :, :, :],
        new.values[..., 0, :, :, :],
    )
    np.testing.assert_array_equal(found.keys, keys)
    np.testing.assert_array_equal(found.values, values)
    behind = cache.write_behind(old, new, jnp.asarray([0, 4, 2]))
    for row, start in enumerate([0, 4, 2]):
        places = slice(start, start + 2)
        np.testing.assert_array_equal(
            behind.keys[..., row, :, :, places], new.keys[..., row, :, :, :]
        )
        np.testing.assert_array_equal(
            behind.values[..., row, :, places, :], new.values[..., row, :, :, :]
        )
    np.testing.assert_array_equal(behind.keys[..., 0, :, :, 2:], old.keys[..., 0, :, :, 2:])
    taken = cache.take_rows(old, jnp.asarray([2, 0]))
    np.testing.assert_array_equal(taken.values[..., 1, :, :, :], old.values[..., 0, :, :, :])
    grown = cache.with_places(old, 8)
    np.testing.assert_array_equal(grown.keys[..., :6], old.keys)
    np.testing.assert_array_equal(cache.with_places(grown, 6).values, old.values)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_new_keys_and_values_are_put_where_they_belong_and_nowhere_else(dtype):
    rng = np.random.default_rng(0)
    old = cache.LayerCache(rng.normal(size=(2, K, H, 6)), rng.normal(size=(2, K, 6, H)))
    old = jax.tree.map(lambda x: jnp.asarray(x, dtype), old)
    k, v = (jnp.asarray(rng.normal(size=(2, 2, K, H)), jnp.float32) for _ in range(2))
    found = cache.append(old, k, v, jnp.int32(3))
    keys, values = np.array(old.keys), np.array(old.values)
    keys[..., 3:5] = k.transpose(0, 2, 3, 1).astype(dtype)
    values[:, :, 3:5] = v.transpose(0, 2, 1, 3).astype(dtype)
    np.testing.assert_array_equal(found.keys, keys)
    np.testing.assert_array_equal(found.values, values)


def test_one_row_of_bfloat16_is_multiplied_as_two():
    x, kernel = jnp.ones((1, 64), "bfloat16"), jnp.ones((64, 24), "bfloat16")
    program = jax.make_jaxpr(float32_product)(x, kernel)
    (dot,) = [one for one in program.eqns if one.primitive.name == "dot_general"]
    assert dot.invars[0].aval.shape == (2, 64)


@pytest.mark.parametrize("shape", [(1, 1, 64), (1, 64), (64,), (3, 1, 64)])
def test_a_product_of_one_row_of_bfloat16_is_that_of_float32_rounded_once(shape):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=of), "bfloat16") for of in (shape, (64, 24)))
    exact = np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)
    found = float32_product(x, kernel)
    assert (found.shape, found.dtype) == ((*shape[:-1], 24), jnp.float32)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)
