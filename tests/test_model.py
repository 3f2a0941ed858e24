"""What the decoder must mean: who sees whom, what trains, what an adapter changes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import CONFIG, LORA, batch_of, documents, stirred, tiny

from hen_jax.adapters.lora import check_targets, merge_adapter, merge_rounding
from hen_jax.core.errors import InputError
from hen_jax.core.trees import combine, flatten
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.models.layers import Linear, side_by_side
from hen_jax.models.parameters import parameter_table
from hen_jax.objectives.tokens import score_tokens
from hen_jax.steps.sft import sft_loss


def logits(parts, params, batch):
    model = merge(parts.graphdef, *params)
    return model.logits(model.hidden(batch.tokens, batch.positions, batch.segments))


def test_a_position_hears_only_earlier_positions_of_its_own_document():
    parts = tiny()
    batch = batch_of([documents([5, 6, 3])], 16)
    model = merge(parts.graphdef, parts.base)
    vectors = model.embedded(batch.tokens)

    def at(x, t):
        stand_in = merge(parts.graphdef, parts.base)
        stand_in.embedded = lambda _: x
        return stand_in.hidden(batch.tokens, batch.positions, batch.segments)[0, t].sum()

    gradient = jax.jit(jax.grad(at))
    heard = np.stack([np.abs(gradient(vectors, t)[0]).sum(-1) > 0 for t in range(14)])
    segments = np.asarray(batch.segments[0])
    expected = np.array(
        [[s <= t and segments[s] == segments[t] for s in range(16)] for t in range(14)]
    )
    np.testing.assert_array_equal(heard, expected)


@pytest.mark.parametrize("remat", ["none", "dots", "block"])
def test_packed_documents_score_as_they_do_alone(remat):
    parts = tiny(execution=Execution(remat=remat))
    loss = jax.jit(sft_loss(parts.graphdef, chunk=5))
    found = documents([5, 6, 3, 9])
    together, _ = loss(parts.base, {}, batch_of([found], 24))
    alone = [loss(parts.base, {}, batch_of([[one]], 24))[0] for one in found]
    assert float(together.count) == sum(float(mean.count) for mean in alone)
    np.testing.assert_allclose(together.total, sum(float(mean.total) for mean in alone), rtol=1e-5)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_bfloat16_gradients_point_where_float32_ones_do(lora):
    batch = batch_of([documents([5, 6, 3, 9])], 24)
    found = []
    for dtype in ("float32", "bfloat16"):
        parts = tiny(lora, Execution(compute_dtype=dtype))
        params, frozen = (parts.base, {}) if lora is None else (stirred(parts.adapter), parts.base)
        loss = sft_loss(parts.graphdef)
        gradient = jax.jit(jax.grad(lambda p, f, loss=loss: loss(p, f, batch)[0].total))
        leaves = flatten(gradient(params, frozen)).values()
        found.append(np.concatenate([np.ravel(leaf).astype(np.float32) for leaf in leaves]))
    exact, rounded = found
    cosine = exact @ rounded / np.linalg.norm(exact) / np.linalg.norm(rounded)
    assert 0.99 < cosine < 1.0


def test_changing_one_document_leaves_its_neighbours_gradient_alone():
    parts = tiny()
    loss = sft_loss(parts.graphdef)
    first, other, changed = *documents([7, 6]), documents([6], seed=9)[0]
    quiet = [
        type(one)(one.tokens, np.zeros_like(one.mask), one.id, one.group)
        for one in (other, changed)
    ]
    gradient = jax.jit(jax.grad(lambda params, batch: loss(params, {}, batch)[0].total))
    a, b = (gradient(parts.base, batch_of([[first, document]], 16)) for document in quiet)
    for path, leaf in flatten(a).items():
        np.testing.assert_allclose(leaf, flatten(b)[path], atol=1e-6, err_msg=path)


def test_a_uniform_model_loses_ln_v_on_trained_tokens_only():
    parts = tiny()
    zero = jax.tree.map(jnp.zeros_like, parts.base)
    batch = batch_of([documents([5, 6])], 16)
    mean, metrics = sft_loss(parts.graphdef)(zero, {}, batch)
    np.testing.assert_allclose(mean.total / mean.count, np.log(CONFIG.vocab_size), rtol=1e-6)
    assert float(mean.count) == float(batch.mask.sum()) == float(metrics["accuracy"].count)


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_chunked_scores_equal_a_plain_log_softmax(chunk):
    parts = tiny()
    batch = batch_of([documents([5, 6, 3]), documents([9], seed=3)], 16)
    model = merge(parts.graphdef, parts.base)
    hidden = model.hidden(batch.tokens, batch.positions, batch.segments)
    scores = score_tokens(model.logits, hidden, batch.targets, batch.mask, 8, chunk)
    plain = jax.nn.log_softmax(model.logits(hidden))
    plain = jnp.take_along_axis(plain, batch.targets[..., None], -1)[..., 0] * batch.mask
    np.testing.assert_allclose(scores.log_probs, plain, atol=1e-5)


def test_prompt_positions_never_reach_the_vocabulary():
    parts = tiny()
    batch = batch_of([documents([10, 4])], 32)
    model = merge(parts.graphdef, parts.base)
    hidden = model.hidden(batch.tokens, batch.positions, batch.segments)
    trained = np.asarray(hidden)[np.asarray(batch.mask) > 0]
    capacity, seen = len(trained), []

    def spy(h):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), h)
        return model.logits(h)

    score_tokens(spy, hidden, batch.targets, batch.mask, capacity).log_probs.block_until_ready()
    jax.effects_barrier()
    np.testing.assert_array_equal(np.concatenate(seen).reshape(capacity, -1), trained)


@pytest.mark.parametrize(("chunk", "products"), [(4, 3), (8, 2)])
def test_the_logits_of_a_single_chunk_are_not_computed_again(chunk, products):
    parts = tiny()
    batch = batch_of([documents([5, 6, 3])], 16)
    model = merge(parts.graphdef, parts.base)

    def total(hidden):
        scores = score_tokens(model.logits, hidden, batch.targets, batch.mask, 8, chunk)
        return scores.log_probs.sum()

    hidden = model.hidden(batch.tokens, batch.positions, batch.segments)
    assert str(jax.make_jaxpr(jax.grad(total))(hidden)).count("dot_general") == products


def test_a_row_that_trains_more_than_the_capacity_is_never_cut_short_silently():
    parts = tiny()
    batch = batch_of([documents([9]), documents([3])], 16)
    model = merge(parts.graphdef, parts.base)
    hidden = model.hidden(batch.tokens, batch.positions, batch.segments)
    scores = score_tokens(model.logits, hidden, batch.targets, batch.mask, capacity=3)
    assert np.isnan(scores.log_probs[0]).any()
    assert np.isfinite(scores.log_probs[1]).all()


def test_a_fresh_adapter_changes_nothing_bit_for_bit():
    plain, adapted = tiny(), tiny(LORA)
    batch = batch_of([documents([9, 5])], 16)
    np.testing.assert_array_equal(
        logits(plain, [adapted.base], batch),
        logits(adapted, [adapted.adapter, adapted.base], batch),
    )


def test_a_merged_adapter_speaks_as_the_adapter_does():
    plain, adapted = tiny(), tiny(LORA)
    adapter = stirred(adapted.adapter)
    batch = batch_of([documents([9, 5])], 16)
    merged = merge_adapter(adapted.base, adapter, LORA.scale)
    with_adapter = logits(adapted, [adapter, adapted.base], batch)
    np.testing.assert_allclose(logits(plain, [merged], batch), with_adapter, atol=2e-4)
    assert np.abs(with_adapter - logits(plain, [adapted.base], batch)).max() > 0.1
    assert merge_rounding(adapted.base, adapter, LORA.scale) == 0.0


def test_merging_into_bfloat16_rounds_once():
    adapted = tiny(LORA)
    adapter = stirred(adapted.adapter)
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), adapted.base)
    merged = flatten(merge_adapter(low, adapter, LORA.scale))["blocks/attn/q/kernel"]
    a, b = (np.asarray(flatten(adapter)[f"blocks/attn/q/lora_{x}"]) for x in "ab")
    exact = np.asarray(flatten(low)["blocks/attn/q/kernel"], np.float32) + LORA.scale * (a @ b)
    np.testing.assert_array_equal(merged, exact.astype(jnp.bfloat16))
    assert 0 < merge_rounding(low, adapter, LORA.scale) < 0.02


def test_adapters_sit_where_they_are_asked_for():
    lora = LoraConfig(rank=2, alpha=2.0, targets=("q", "down"))
    found = {path.split("/")[-2] for path in flatten(tiny(lora).adapter)}
    assert found == {"q", "down"}
    check_targets(lora, tiny(lora).adapter)
    lost = LoraConfig(rank=2, alpha=2.0, targets=("q", "query"))
    with pytest.raises(InputError, match="'query'"):
        check_targets(lost, tiny(lost).adapter)


def test_one_table_gives_every_parameter_with_its_axes():
    parts = tiny(LORA)
    table = parameter_table(abstract(CONFIG, LORA))
    leaves = flatten(combine(parts.adapter, parts.base))
    assert {path: leaf.shape for path, leaf in leaves.items()} == {
        path: parameter.shape for path, parameter in table.items()
    }
    assert table["blocks/attn/k/kernel"].axes == ("layers", "embed", "kv_heads")
    assert all(len(row.axes) == len(row.shape) for row in table.values())


def test_a_decoder_of_shapes_has_the_structure_of_a_real_one():
    assert split(abstract(CONFIG, LORA)).graphdef == tiny(LORA).graphdef


def test_layers_side_by_side_give_what_each_gives_alone():
    """Also where one of them has no adapter, and one another rank."""
    ranks = {"q": 3, "k": None, "v": 5}
    layers = [
        Linear(
            jax.random.key(number),
            (8, 6),
            ("embed", "heads"),
            rank and LoraConfig(rank, 2.0),
            jnp.dtype("float32"),
        )
        for number, rank in enumerate(ranks.values())
    ]
    for layer in layers:
        if layer.lora_b is not None:
            layer.lora_b[...] = jnp.ones_like(layer.lora_b[...])
    x = jax.random.normal(jax.random.key(9), (2, 4, 8))
    found = jax.make_jaxpr(lambda x: side_by_side(x, *layers))(x)
    # Three kernels, one product for both factors A, two factors B.
    assert str(found).count("dot_general") == 6
    for one, layer in zip(side_by_side(x, *layers), layers, strict=True):
        np.testing.assert_allclose(one, layer(x), rtol=1e-5, atol=1e-6)


def test_the_last_layers_go_on_where_the_first_ones_ended():
    parts = tiny()
    batch = batch_of([documents([5, 6, 3])], 16)
    layers, rows = parts.base["blocks"], (batch.tokens, batch.positions, batch.segments)

    def part(chosen):
        of = jax.tree.map(lambda leaf: leaf[chosen], layers)
        config = dataclasses.replace(CONFIG, layers=len(jax.tree.leaves(of)[0]))
        return merge(split(abstract(config)).graphdef, parts.base | {"blocks": of})

    below = part(slice(0, 1)).residual(*rows)
    found = part(slice(1, None)).hidden(batch.tokens * 0, *rows[1:], soft=below)
    whole = merge(parts.graphdef, parts.base).hidden(*rows)
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)
    assert not np.allclose(found, part(slice(1, None)).hidden(*rows), atol=1e-3)


def test_what_the_gate_lets_through_is_rounded_once():
    random = np.random.default_rng(0)
    gate, up = (jnp.asarray(random.normal(size=(2, 3, 64)), jnp.bfloat16) for _ in range(2))
    layer = merge(tiny().graphdef, tiny().base).blocks.mlp
    found = jax.jit(layer._gated)(gate, up)
    wide, wide_up = (np.asarray(one, np.float64) for one in (gate, up))
    expected = wide / (1 + np.exp(-wide)) * wide_up
    exact = jnp.asarray(expected, jnp.float32).astype(jnp.bfloat16)
    assert found.dtype == jnp.bfloat16
    assert (found == exact).mean() > 0.99  # the last bit of float32 decides now and then
