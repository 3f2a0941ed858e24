"""Generation: the cache computes what training computes, and tokens are drawn as documented."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model

from hen_jax.core.errors import InputError
from hen_jax.models.cache import unstack_cache
from hen_jax.models.config import LoraConfig
from hen_jax.models.decoder import Decoder
from hen_jax.sampling import generate as g
from hen_jax.sampling.logits import Sampling, draw, top_p_mask, truncated

CONFIG = dataclasses.replace(
    tiny_model.CONFIG, vocab_size=97, width=32, head_dim=8, mlp_width=48, max_length=64
)
PROMPTS = ([5, 6, 7, 8, 9, 10, 11], [12], [13, 14, 15])
GREEDY = g.Generating(10, stop=(), sampling=Sampling(temperature=0.0))
run = jax.jit(g.generate, static_argnames="settings")
prefill = jax.jit(g.prefill, static_argnames="max_new_tokens")
decode = jax.jit(g.decode, static_argnames="settings")
lay_out = jax.jit(g.lay_out, static_argnames="unroll_layers")


@pytest.fixture(scope="module")
def model() -> Decoder:
    """Random weights, scaled up so that the next token is neither certain nor a coin toss."""
    model = Decoder(jax.random.key(0), CONFIG, LoraConfig(2, 4.0, ("q", "down")))
    model.embed.embedding[...] = model.embed.embedding[...] * 20
    b = model.blocks.attn.q.lora_b
    b[...] = jax.random.normal(jax.random.key(1), b.shape)  # an adapter that does something
    return model


@jax.jit
def training_logits(model: Decoder, tokens: jax.Array, segments: jax.Array) -> jax.Array:
    hidden = model.hidden(tokens, jnp.arange(tokens.shape[1])[None], segments)
    return model.logits(hidden)


def uncached(model: Decoder, tokens: list[int]) -> np.ndarray:
    """Logits `[T, V]` by the training forward pass of one row, padded at the right."""
    T = len(tokens)
    row = jnp.asarray([tokens + [0] * (24 - T)])
    return np.asarray(training_logits(model, row, (jnp.arange(24) < T).astype(int)[None]))[0, :T]


def teacher_forced(model: Decoder, unroll: bool, continuation: np.ndarray) -> np.ndarray:
    """Logits `[B, M + 1, V]` of the cached path when it is fed `continuation` `[B, M]`."""
    weights = lay_out(model, unroll)
    start = prefill(weights, g.pad_prompts(PROMPTS, buckets=(9,)), continuation.shape[1])
    step = jax.jit(lambda t, p, c: model.decode(t, p, c, weights.blocks))
    logits, cache = [start.logits], unstack_cache(start.cache) if unroll else start.cache
    for offset, column in enumerate(continuation.T):
        hidden, cache = step(jnp.asarray(column), start.positions + offset, cache)
        logits.append(model.logits(hidden))
    return np.stack(logits, axis=1)


@pytest.mark.parametrize("unroll", [True, False])
def test_cached_logits_equal_uncached_ones_for_ragged_prompts(model: Decoder, unroll: bool):
    continuation = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (3, 5))
    cached = teacher_forced(model, unroll, continuation)
    for row, prompt in enumerate(PROMPTS):
        whole = uncached(model, prompt + continuation[row].tolist())
        np.testing.assert_allclose(cached[row], whole[len(prompt) - 1 :], atol=2e-5)


@pytest.mark.parametrize("unroll", [True, False])
def test_greedy_takes_the_argmax_of_the_uncached_logits(model: Decoder, unroll: bool):
    out = run(lay_out(model, unroll), g.pad_prompts(PROMPTS), jax.random.key(0), GREEDY)
    for prompt, new in zip(PROMPTS, out.tokens.tolist(), strict=True):
        chosen = uncached(model, prompt + new[:-1]).argmax(-1)[len(prompt) - 1 :]
        assert new == chosen.tolist()


def test_stored_log_probs_equal_those_the_training_forward_recomputes(model: Decoder):
    settings = g.Generating(8, (), sampling=Sampling(temperature=0.7, top_k=20, top_p=0.9))
    out = run(lay_out(model), g.pad_prompts(PROMPTS), jax.random.key(3), settings)
    for row, prompt in enumerate(PROMPTS):
        new = out.tokens[row].tolist()
        logits = uncached(model, prompt + new[:-1])[len(prompt) - 1 :]
        own = np.asarray(jax.nn.log_softmax(logits))[np.arange(8), new]
        np.testing.assert_allclose(out.log_probs[row], own, atol=2e-5)
        cut = truncated(jnp.asarray(logits) / 0.7, 20, 0.9)
        drawn_from = np.asarray(jax.nn.log_softmax(cut))[np.arange(8), new]
        np.testing.assert_allclose(out.sampling_log_probs[row], drawn_from, atol=1e-4)


def test_a_row_ends_with_its_stop_token_and_the_loop_with_the_last_row(model: Decoder):
    weights, prompts = lay_out(model), g.pad_prompts(PROMPTS)
    free = np.asarray(run(weights, prompts, jax.random.key(0), GREEDY).tokens)
    stop = (int(free[0, 2]), int(free[1, 4]))
    settings = dataclasses.replace(GREEDY, stop=stop, pad=96)
    out = run(weights, prompts, jax.random.key(0), settings)
    for row in range(3):
        hits = np.flatnonzero(np.isin(free[row], stop))
        length = int(hits[0]) + 1 if hits.size else GREEDY.max_new_tokens
        assert int(out.lengths[row]) == length
        assert out.tokens[row].tolist() == free[row, :length].tolist() + [96] * (10 - length)
        assert (out.log_probs[row, :length] < 0).all()
        assert (out.log_probs[row, length:] == 0).all()


def test_the_loop_runs_only_until_all_rows_are_done(
    model: Decoder, monkeypatch: pytest.MonkeyPatch
):
    weights, key = lay_out(model), jax.random.key(0)
    free = run(weights, g.pad_prompts([PROMPTS[0]] * 2), key, GREEDY).tokens[0].tolist()
    settings = dataclasses.replace(GREEDY, stop=(free[3],))
    steps = []

    def counted(self: Decoder, *inputs):
        jax.debug.callback(lambda: steps.append(1))
        return one_step(self, *inputs)

    one_step = Decoder.decode
    monkeypatch.setattr(Decoder, "decode", counted)
    start = prefill(weights, g.pad_prompts([PROMPTS[0]] * 2), settings.max_new_tokens)
    out = g.decode(weights, start, key, settings)
    jax.effects_barrier()
    assert out.lengths.tolist() == [free.index(free[3]) + 1] * 2
    assert len(steps) == free.index(free[3])  # the prefill gives the first token's logits


@pytest.mark.parametrize(
    ("top_k", "top_p"), [(5, 1.0), (0, 0.6), (7, 0.5), (500, 0.999), (1, 1e-6)]
)
def test_truncation_keeps_what_a_sort_keeps(top_k: int, top_p: float):
    logits = np.random.default_rng(top_k).normal(size=(4, 301)).astype(np.float32) * 3
    kept = np.isfinite(np.asarray(truncated(jnp.asarray(logits), top_k, top_p)))
    for row, mine in zip(logits.astype(np.float64), kept, strict=True):
        order = np.argsort(-row)[: top_k or None]
        probs = np.exp(row[order] - row.max())
        below = np.cumsum(probs / probs.sum()) < top_p
        expected = order[: below.sum() + 1] if top_p < 1 else order
        assert sorted(np.flatnonzero(mine)) == sorted(expected)


def test_ties_are_kept_and_worked_examples_hold():
    tied = jnp.asarray([[0.0, 2.0, 2.0, -1.0]])
    assert np.isfinite(truncated(tied, 1, 1.0)).tolist() == [[False, True, True, False]]
    logits = jnp.log(jnp.asarray([[0.5, 0.3, 0.15, 0.05]]))
    assert np.isfinite(truncated(logits, 0, 0.83)).sum() == 3
    assert np.isfinite(truncated(logits, 3, 0.83)).sum() == 2
    probs = jax.nn.softmax(jnp.asarray([[1.0, 0.0, -1.0]]))
    enough = float(probs[0, 0])  # exactly: the first alone sums to `top_p`
    assert top_p_mask(jnp.asarray([[1.0, 0.0, -1.0]]), enough).tolist() == [[True, False, False]]


def test_a_greedy_token_has_the_models_own_log_probability():
    logits = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 3)
    drawn = draw(jnp.asarray(logits), keys, Sampling(temperature=0.0))
    wanted = logits.max(1) - np.log(np.exp(logits).sum(1))
    assert drawn.tokens.tolist() == logits.argmax(1).tolist()
    np.testing.assert_allclose(drawn.log_probs, wanted, atol=1e-6)
    assert drawn.sampling_log_probs.tolist() == [0, 0, 0]


def test_draws_follow_the_tempered_distribution():
    logits = np.asarray([2.0, 1.0, 0.0, -1.0], np.float32)
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = draw(jnp.tile(logits, (20_000, 1)), keys, Sampling(temperature=2.0))
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum()
    share = np.bincount(drawn.tokens, minlength=4) / 20_000
    np.testing.assert_allclose(share, expected, atol=0.012)  # 3.5 standard errors
    np.testing.assert_allclose(drawn.sampling_log_probs, np.log(expected)[drawn.tokens], atol=1e-5)


def test_what_a_row_becomes_does_not_hang_on_its_neighbours(model: Decoder):
    weights, key = lay_out(model), jax.random.key(5)
    settings = g.Generating(6, stop=())
    together = run(weights, g.pad_prompts(PROMPTS), key, settings).tokens
    other = run(weights, g.pad_prompts([PROMPTS[0], [1, 2], [3]]), key, settings).tokens
    assert together[0].tolist() == other[0].tolist()
    assert together[1].tolist() != other[1].tolist()
    again = run(weights, g.pad_prompts(PROMPTS), jax.random.key(6), settings).tokens
    assert together[0].tolist() != again[0].tolist()


def test_texts_of_any_length_hit_one_compilation(model: Decoder):
    traces = []

    @jax.jit
    def counted(weights: g.Weights, prompts: g.Prompts, key: jax.Array) -> g.Generation:
        traces.append(prompts.tokens.shape)
        return g.generate(weights, prompts, key, g.Generating(4, stop=(1,)))

    weights = lay_out(model)
    for length in (1, 2, 15, 31, 32):
        prompts = g.pad_prompts([list(range(length)), [3]])
        counted(weights, prompts, jax.random.key(length))
    weights = lay_out(jax.tree.map(lambda x: x * 0.5, model))  # as after a train step
    counted(weights, prompts, jax.random.key(0))
    assert traces == [(2, 32)]
    assert counted._cache_size() == 1


@pytest.mark.parametrize("unroll", [True, False])
def test_rollouts_may_share_a_prefill(model: Decoder, unroll: bool):
    weights = lay_out(model, unroll)
    settings, key = g.Generating(6, stop=()), jax.random.key(2)
    alone = prefill(weights, g.pad_prompts([PROMPTS[0]]), 6)
    three = prefill(weights, g.pad_prompts([PROMPTS[0]] * 3), 6)
    shared = decode(weights, g.repeated(alone, 3), key, settings)
    own = decode(weights, three, key, settings)
    assert shared.tokens.tolist() == own.tokens.tolist()
    assert len({tuple(row) for row in shared.tokens.tolist()}) == 3


@pytest.mark.parametrize(
    ("length", "padded"), [(1, 32), (33, 64), (8192, 8192), (8193, 9216), (9217, 10240)]
)
def test_a_prompt_of_any_length_is_padded(length, padded):
    prompts = g.pad_prompts([[7] * length, [8]])
    assert prompts.tokens.shape == (2, padded)
    assert prompts.tokens[0, -length:].tolist() == [7] * length
    assert prompts.lengths.tolist() == [length, 1]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Sampling(temperature=-1.0), "temperature is -1.0"),
        (lambda: Sampling(top_k=-1), "top_k is -1"),
        (lambda: Sampling(top_p=0.0), "top_p is 0.0"),
        (lambda: g.Generating(0, stop=()), "max_new_tokens is 0"),
        (lambda: g.pad_prompts([[1], []]), "holds no token"),
        (lambda: g.pad_prompts([]), "holds no token"),
    ],
)
def test_bad_settings_are_refused_with_the_remedy(make, says: str):
    with pytest.raises(InputError, match=says):
        make()
