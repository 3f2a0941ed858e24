"""Every family on the one decoder: configs both ways, packing, windows, decoding, gradients."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_families import CONFIGS, random_leaves

from hen_jax.core.errors import InputError
from hen_jax.core.trees import flatten
from hen_jax.models.attention import attention
from hen_jax.models.cache import Cache, empty_layers, empty_recent, write_behind
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import abstract, merge, split, unstack_layers
from hen_jax.models.dot_product import causal_segment_mask
from hen_jax.models.extend import New, extend
from hen_jax.models.families import table
from hen_jax.models.heads import last_tokens, row_scores
from hen_jax.models.quantised import logit_error, quantised, quantised_base
from hen_jax.models.rope import document_lengths
from hen_jax.objectives.tokens import score_tokens

families = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
TOKENS = np.random.default_rng(1).integers(1, 96, (3, 24)).astype(np.int32)


def built(config, params, execution=Execution(remat="none"), lora=None):
    return merge(split(abstract(config, lora, execution)).graphdef, params)


@partial(jax.jit, static_argnums=(0, 1))
def logits(config, execution, params, tokens, positions, segments):
    model = built(config, params, execution)
    return model.logits(model.hidden(tokens, positions, segments))


def alone(config, params, documents):
    """Logits of three documents of up to 24 tokens, each in a row of its own."""
    tokens, at = np.zeros((3, 24), np.int32), np.tile(np.arange(24), (3, 1))
    for row, document in zip(tokens, documents, strict=True):
        row[: len(document)] = document
    segments = (at < [[len(document)] for document in documents]).astype(int)
    return np.asarray(logits(config, Execution(), params, tokens, at, segments))


@families
def test_a_config_survives_its_config_json_and_odd_keys_do_not(config):
    for read in (config, dataclasses.replace(config, score_head=True)):
        fields = table.to_hf(read)
        assert table.from_hf(fields) == read
        with pytest.raises(InputError, match="'novel_trick'"):
            table.from_hf(fields | {"novel_trick": 1})


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("qwen2", {"layer_types": ["full_attention"]}, "each of the 3 layers"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 3}, "there is no window"),
        ("phi3", {"partial_rotary_factor": 0.1}, "rotates 0"),
        ("phi3", {"rope_parameters": None, "rope_scaling": {"type": "yarn"}}, "'yarn'"),
        ("phi3", {"rope_scaling": {"type": "su", "short_factor": [1.0]}}, "'long_factor' is None"),
        ("gemma2", {"hidden_activation": "gelu"}, "'hidden_activation' is 'gelu'"),
        ("gemma3", {"attn_logit_softcapping": 30.0}, "'attn_logit_softcapping' is 30.0"),
        ("gemma3", {"rope_local_base_freq": 5.0}, "disagree"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "2 labels"),
    ],
)
def test_what_a_family_does_not_have_is_refused(family, change, message):
    with pytest.raises(InputError, match=message):
        table.from_hf(table.to_hf(CONFIGS[family]) | change)


def test_a_family_refuses_to_write_what_only_another_has():
    capped = dataclasses.replace(CONFIGS["llama"], attention_softcap=50.0, qk_norm=True)
    with pytest.raises(InputError, match="cannot express qk_norm, attention_softcap"):
        table.to_hf(capped)


def test_older_spellings_of_published_configs_are_read():
    qwen = {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864}
    qwen |= {"num_attention_heads": 14, "num_key_value_heads": 2, "num_hidden_layers": 24}
    qwen |= {"vocab_size": 151936, "rope_theta": 1e6, "max_window_layers": 21}
    read = table.from_hf(qwen | {"sliding_window": 32768, "use_sliding_window": False})
    assert (read.window, read.rope_theta, read.qkv_bias) == (None, 1e6, True)
    used = table.from_hf(qwen | {"sliding_window": 32768, "use_sliding_window": True})
    assert used.windows == (None,) * 21 + (32768,) * 3
    gemma = {"model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912}
    gemma |= {"num_attention_heads": 4, "num_key_value_heads": 1, "num_hidden_layers": 26}
    gemma |= {"vocab_size": 262144, "sliding_window": 512, "sliding_window_pattern": 6}
    read = table.from_hf(gemma | {"rope_local_base_freq": 10000, "rope_theta": 1000000})
    assert (read.global_layers, read.local_rope_theta) == ((5, 11, 17, 23), 1e4)
    phi = {"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192}
    phi |= {"num_attention_heads": 32, "num_hidden_layers": 32, "vocab_size": 32064}
    phi |= {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}
    factors = {"short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
    read = table.from_hf(phi | {"rope_scaling": {"type": "su", **factors}})
    assert read.rope_scaling.attention_factor == pytest.approx(1.1902380714)


def seen(segments, window):
    T = len(segments)
    return [
        [segments[s] == segments[t] and 0 <= t - s < (window or T) for s in range(T)]
        for t in range(T)
    ]


@pytest.mark.parametrize(("window", "softcap"), [(None, 2.0), (4, None), (270, 2.0)])
def test_chunked_attention_is_the_plain_one_derivatives_included(window, softcap):
    rng = np.random.default_rng(0)
    T = 300  # not a multiple of the chunk
    segments = np.repeat([[1, 2, 3, 0], [1, 1, 2, 2]], T // 4, axis=1)
    shape = (2, T, 2, 4)
    q, k, v, turn = (rng.standard_normal(shape).astype(np.float32) for _ in range(4))
    np.testing.assert_array_equal(
        causal_segment_mask(segments, window)[0, 0], seen(segments[0], window)
    )

    def second(backend):
        look = attention(backend, jnp.asarray(segments), window, softcap, 0.5)

        def total(q, k, v):
            return (look(q, k, v) ** 2).sum()

        # Forward over reverse, as the exact meta-gradients need it.
        return jax.jvp(jax.grad(total, (0, 1, 2)), (q, k, v), (turn, k, v))

    plain, chunked = (jax.jit(second, static_argnums=0)(name) for name in ("xla", "chunked"))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4), plain, chunked)


def test_document_lengths_reach_back_to_every_token():
    positions = jnp.asarray([[0, 1, 0, 1, 2, 0, 0]])
    segments = jnp.asarray([[1, 1, 2, 2, 2, 3, 0]])
    assert document_lengths(positions, segments).tolist() == [[2, 2, 3, 3, 3, 1, 1]]


@families
def test_packed_documents_read_as_they_do_alone(config):
    params, _ = random_leaves(config)
    lengths = (19, 3, 2)  # the first is longer than every window and longrope's short length
    positions = np.concatenate([np.arange(n) for n in lengths])
    segments = np.concatenate([np.full(n, i + 1) for i, n in enumerate(lengths)])
    row = [np.tile(x, (3, 1)) for x in (TOKENS[0], positions, segments)]
    together = logits(config, Execution(), params, *row)[0]
    apart = np.split(TOKENS[0], np.cumsum(lengths)[:-1])
    found = alone(config, params, apart)
    expected = np.concatenate([found[i, :n] for i, n in enumerate(lengths)])
    np.testing.assert_allclose(together, expected, atol=2e-5)


CACHED = [(name, False) for name in CONFIGS] + [("llama", True), ("gemma3", True), ("phi3", True)]


@pytest.mark.parametrize(("family", "unrolled"), CACHED)
def test_cached_logits_equal_uncached_ones_for_ragged_prompts(family, unrolled):
    config = CONFIGS[family]
    params, _ = random_leaves(config)
    # Longrope reads a row by what it may come to, so all rows come to more than its 16 here.
    lengths, slots = np.asarray([9, 4, 7]), 24
    T = 9
    ends = lengths + slots - T

    @jax.jit
    def read(params, tokens, positions, cache, recent, place):
        model = built(config, params)
        blocks = unstack_layers(model.blocks, config.layers) if unrolled else None
        new = New(tokens, positions, ends)
        hidden, recent = extend(model, blocks, new, cache, recent, place)
        return model.logits(hidden), recent

    empty = empty_layers(config, 3, slots, jnp.dtype("float32"), unrolled)
    at = np.broadcast_to(np.arange(T), (3, T))
    logits, recent = read(params, TOKENS[:3, :T], at, None, empty_recent(empty, 3, T), 0)
    # What stands behind a prompt in its row is seen by nobody.
    kept = Cache(write_behind(empty, recent.layers, jnp.zeros(3, int)), jnp.asarray(lengths))
    found = [logits[np.arange(3), lengths - 1]]
    recent = empty_recent(empty, 3, slots - T)
    for more in range(slots - T):
        here = (lengths + more)[:, None]
        tokens = np.take_along_axis(TOKENS[:3], here, 1)
        now, recent = read(params, tokens, here, kept, recent, more)
        found.append(now[:, 0])
    found = np.stack(found, 1)
    whole = alone(config, params, [TOKENS[row, :end] for row, end in enumerate(ends)])
    for row, (n, end) in enumerate(zip(lengths, ends, strict=True)):
        np.testing.assert_allclose(found[row], whole[row, n - 1 : end], atol=5e-5)


def training(config):
    """A loss of `(adapter, params)`, and random values of both."""
    lora = LoraConfig(2, 4.0)
    params, adapter = random_leaves(config, lora)
    tokens, at = TOKENS[:1, :20], np.arange(20)[None]
    mask = jnp.ones(tokens.shape).at[0, -1].set(0.0)

    def loss(adapter, params):
        model = merge(split(abstract(config, lora, Execution())).graphdef, adapter, params)
        hidden = model.hidden(tokens, at, np.ones_like(tokens))
        targets = np.roll(tokens, -1, axis=1)
        return -score_tokens(model.scorer(), hidden, targets, mask).log_probs.sum()

    return loss, adapter, params


@families
def test_every_leaf_has_a_gradient(config):
    loss, adapter, params = training(config)
    for path, leaf in flatten(jax.jit(jax.grad(loss, (0, 1)))(adapter, params)).items():
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_gradients_change_along_a_direction_as_a_difference_quotient_does():
    # Forward over reverse, as in the meta-gradients, through windows, caps and every norm.
    loss, adapter, params = training(CONFIGS["gemma2"])
    rng = np.random.default_rng(0)
    way = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), adapter)

    @jax.jit
    def gradients(adapter):
        return jax.jvp(lambda adapter: jax.grad(loss)(adapter, params), (adapter,), (way,))

    _, turned = gradients(adapter)
    step = 1e-3
    ahead, behind = (
        gradients(jax.tree.map(lambda x, w, s=s: x + s * step * w, adapter, way))[0]
        for s in (1, -1)
    )
    exact, near = (
        np.concatenate([x.ravel() for x in jax.tree.leaves(tree)])
        for tree in (turned, jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind))
    )
    assert exact @ near / np.linalg.norm(exact) / np.linalg.norm(near) > 0.999


def test_a_reward_is_read_off_the_last_token_of_each_document():
    config = dataclasses.replace(CONFIGS["qwen3"], score_head=True)
    params, _ = random_leaves(config)
    assert "head" not in params
    model = built(config, params)
    segments = jnp.asarray([[1, 1, 1, 2, 2, 0], [0, 0, 1, 1, 1, 1]])
    assert last_tokens(segments).tolist() == [
        [False, False, True, False, True, False],
        [False] * 5 + [True],
    ]
    hidden = np.random.default_rng(0).standard_normal((2, 6, 32)).astype(np.float32)
    kernel = params["score"]["kernel"][:, 0]
    found = row_scores(model.score(hidden, segments))
    expected = [(hidden[0, 2] + hidden[0, 4]) @ kernel, hidden[1, 5] @ kernel]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_int8_rounds_each_channel_by_half_its_scale_at_most():
    kernel = np.random.default_rng(0).standard_normal((2, 30, 5)).astype(np.float32)
    kernel[0, :, 3] = 0.0
    found = quantised(kernel)
    assert found.kernel.dtype == jnp.int8
    back = found.kernel * found.scale[:, None]
    assert (np.abs(back - kernel) <= found.scale[:, None] * 0.5001).all()
    assert np.abs(found.kernel).max(axis=1).tolist() == [[127, 127, 127, 0, 127], [127] * 5]


def test_an_int8_base_speaks_nearly_as_the_base_and_trains_an_adapter():
    config, lora = dataclasses.replace(CONFIGS["llama"], layers=2), LoraConfig(2, 4.0)
    params, adapter = random_leaves(config, lora)
    int8 = Execution(base_dtype="int8")

    def run(execution):
        at = np.broadcast_to(np.arange(24), TOKENS.shape)
        return lambda tree: logits(config, execution, tree, TOKENS, at, np.ones_like(TOKENS))

    error = logit_error(run(Execution()), run(int8), params)
    assert 0 < error.root_mean_square < 0.03 * error.spread
    assert error.agreement > 0.9

    rounded = quantised_base(params)
    assert flatten(rounded)["blocks/mlp/up/kernel"].dtype == jnp.int8

    def total(execution, adapter, base):
        model = merge(split(abstract(config, lora, execution)).graphdef, adapter, base)
        at = np.broadcast_to(np.arange(24), TOKENS.shape)
        return (model.hidden(TOKENS, at, np.ones_like(TOKENS)) ** 2).mean()

    gradient = jax.jit(jax.grad(total, 1), static_argnums=0)
    exact, near = (
        np.concatenate([x.ravel() for x in jax.tree.leaves(gradient(execution, adapter, base))])
        for execution, base in ((Execution(), params), (int8, rounded))
    )
    assert exact @ near / np.linalg.norm(exact) / np.linalg.norm(near) > 0.99
