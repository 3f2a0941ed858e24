"""Attention within the reach of documents: what plain attention gives, from fewer scores."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tiny_model import CONFIG, LORA, batch_of, documents, stirred, tiny

from hen_jax.core.mesh import BATCH, MeshConfig, make_mesh
from hen_jax.core.trees import flatten
from hen_jax.core.types import SHARED, Batch, RowLimits
from hen_jax.data.packing import pack_row
from hen_jax.models.attention import attention
from hen_jax.models.config import Execution
from hen_jax.models.decoder import Decoder, merge
from hen_jax.models.dot_product import attend, causal_segment_mask
from hen_jax.models.packed_attention import astray, scores_within_limits, within_limits
from hen_jax.steps.limits import beyond_limits
from hen_jax.steps.sft import sft_loss


def row(*documents: int, prefix: int = 0, length: int = 61) -> np.ndarray:
    laid = np.concatenate([[SHARED] * prefix, *([i] * n for i, n in enumerate(documents, 1))])
    return np.pad(laid, (0, length - len(laid))).astype(np.int32)


ROWS: dict[str, tuple[list[np.ndarray], RowLimits | None, int | None]] = {
    "prefixes": (
        [row(9, 12, 1, 8, 12, prefix=5), row(12, 6, 11, prefix=3)],
        RowLimits(12, 5),
        None,
    ),
    "a prefix of whole lanes": ([row(12, 12, 12, prefix=8)], RowLimits(12, 8), None),
    "no prefix": ([row(14, 16, 16), row(3, 16, 2, 16, 16)], RowLimits(16), None),
    "one long document": ([row(3, 19, 4, 2, 3, prefix=2, length=75)], RowLimits(19, 2), None),
    "a window": ([row(9, 30, 20), row(50)], None, 7),
    "a window and a prefix": ([row(9, 12, 1, 8, 12, prefix=5)], RowLimits(12, 5), 20),
    "a window within reach": ([row(9, 22, 20), row(1, 22, 3)], RowLimits(22), 7),
}

DOCUMENTS = {
    "prefixes": 5,
    "a prefix of whole lanes": 4,
    "no prefix": 5,
    "a window and a prefix": 5,
    "a window within reach": 3,
}


@pytest.mark.parametrize("backend", ["xla", "chunked"])
@pytest.mark.parametrize(("softcap", "name"), [(None, name) for name in ROWS] + [(2.0, "prefixes")])
def test_it_is_the_plain_one_derivatives_included(name, softcap, backend):
    compare_with_the_plain_one(*ROWS[name], softcap, backend)


@pytest.mark.parametrize("backend", ["xla", "chunked"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_so_are_documents_laid_apart(name, backend, monkeypatch):
    monkeypatch.setattr("hen_jax.models.packed_attention.MOVING", float("inf"))
    rows, reach, window = ROWS[name]
    assert reach is not None
    bounds = reach._replace(documents=DOCUMENTS[name])
    blocks = f"[{len(rows) * DOCUMENTS[name]},"
    assert blocks in compare_with_the_plain_one(rows, bounds, window, None, backend)


def test_documents_are_laid_apart_where_that_spares_scores():
    alike = RowLimits(16, 8)
    apart, near = (scores_within_limits(alike._replace(documents=n), None, 512) for n in (31, None))
    assert (apart, near) == (31 * 16 * 24 + 64, 512 * 40)
    short = alike._replace(documents=100)
    assert scores_within_limits(short, None, 512) == near


def compare_with_the_plain_one(rows, reach, window, softcap, backend) -> str:
    """The program of the second derivative within `reach`, which is compared."""
    segments = np.stack(rows)
    T = segments.shape[1]
    assert scores_within_limits(reach, window, T) < T * T
    rng = np.random.default_rng(0)
    q, turn = rng.standard_normal((2, len(rows), T, 4, 6)).astype(np.float32)
    k, v = rng.standard_normal((2, len(rows), T, 2, 6)).astype(np.float32)
    real = (segments != 0)[:, :, None, None]

    def second(look):
        def total(q, k, v):
            return (jnp.where(real, look(q, k, v), 0.0) ** 2).sum()

        # Forward over reverse, as the exact meta-gradients need it.
        return jax.jvp(jax.grad(total, (0, 1, 2)), (q, k, v), (turn, k, v))

    look = partial(attention, segments=segments, window=window, softcap=softcap, scale=0.5)
    near = look(backend, reach=reach)
    mask = causal_segment_mask(segments, window)
    seen = partial(attend, mask=mask, scale=0.5, softcap=softcap)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4),
        jax.jit(second, static_argnums=0)(seen),
        jax.jit(second, static_argnums=0)(near),
    )
    assert f"{T},{T}]" in str(jax.make_jaxpr(second, static_argnums=0)(seen))
    program = str(jax.make_jaxpr(second, static_argnums=0)(near))
    assert f"{T},{T}]" not in program
    return program


def test_rows_and_heads_on_a_mesh_stay_where_they_are():
    segments = np.stack([row(12, 12, 12, prefix=8)] * 8)
    look = within_limits(segments, RowLimits(12, 8, 3), None, 0.5, None)
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((8, 61, heads, 6)).astype(np.float32) for heads in (4, 2, 2))
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    place = NamedSharding(mesh, PartitionSpec(BATCH, None, "tensor"))
    gradient = jax.grad(lambda q, k, v: (look(q, k, v) ** 2).sum(), (0, 1, 2))
    spread = jax.jit(gradient, in_shardings=place, out_shardings=place)
    program = spread.lower(q, k, v).compile().as_text()
    assert "all-" not in program
    assert "collective" not in program
    for one, other in zip(jax.jit(gradient)(q, k, v), spread(q, k, v), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def sharing(lengths, prefix: int, row_length: int):
    first, *rest = documents(lengths)
    for one in rest:
        one.tokens[:prefix] = first.tokens[:prefix]
    laid = pack_row([first, *rest], row_length, prefix)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], laid)


@pytest.mark.parametrize("backend", ["xla", "chunked"])
@pytest.mark.parametrize("bound", [RowLimits(8, 5), RowLimits(8, 5, 5)], ids=["near", "apart"])
def test_rows_train_alike_with_and_without_the_bound(backend, bound):
    batch = sharing([12, 13, 11, 13, 12], 5, 48)
    parts = tiny(LORA, Execution(attention=backend))
    adapter = stirred(parts.adapter)

    def gradient(reach):
        loss = sft_loss(parts.graphdef, reach=reach)
        return jax.jit(jax.value_and_grad(lambda at: loss(at, parts.base, batch)[0].total))(adapter)

    (total, free), (bounded_total, bounded) = gradient(None), gradient(bound)
    np.testing.assert_allclose(bounded_total, total, rtol=1e-5)
    for path, leaf in flatten(free).items():
        np.testing.assert_allclose(flatten(bounded)[path], leaf, rtol=1e-4, atol=1e-5, err_msg=path)


@pytest.mark.parametrize(
    "reach",
    [RowLimits(7, 5), RowLimits(8, 4), RowLimits(8, 5, 2)],
    ids=["document", "prefix", "documents"],
)
def test_a_row_beyond_the_bound_gives_nan_and_spoils_no_other(reach):
    kept, beyond = sharing([9, 10], 4, 48), sharing([13, 12, 11], 5, 48)
    batch = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), kept, beyond)
    parts = tiny()
    loss = jax.jit(sft_loss(parts.graphdef, reach=reach))
    assert np.isnan(loss(parts.base, {}, batch)[0].total)
    model = merge(parts.graphdef, parts.base)
    hidden = model.hidden(batch.tokens, batch.positions, batch.segments, reach)
    assert np.isnan(hidden).all(axis=(1, 2)).tolist() == [False, True]
    assert np.isfinite(hidden[0]).all()


WINDOWED = dataclasses.replace(CONFIG, window=9)


def test_a_row_whose_window_would_hide_its_opening_gives_nan_and_no_other():
    """A document alone sees its prefix by its own positions; behind others it lies further off."""
    batch = sharing([12, 11], 5, 24)
    alone = sharing([12], 5, 24)
    model = Decoder(jax.random.key(0), WINDOWED)
    rows = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), batch, alone)
    hidden = model.hidden(rows.tokens, rows.positions, rows.segments)
    assert np.isnan(hidden).all(axis=(1, 2)).tolist() == [True, False]
    assert [line.split()[:2] for line in beyond_limits(rows, window=9)] == [["row", "0"]]
    assert "window is 9" in beyond_limits(rows, window=9)[0]


@pytest.mark.parametrize("window", [3, 5, 9, 12, 19, 24])
def test_just_those_rows_are_nan_that_the_window_gets_wrong(window):
    """Against who may see whom, counted in documents and counted in the row."""
    laid = [sharing([12, 11], 5, 24), sharing([7, 8, 6], 5, 24), sharing([17, 7, 6], 5, 24)]
    batch = jax.tree.map(lambda *leaves: np.concatenate(leaves), *laid)
    for positions, segments in zip(batch.positions, batch.segments, strict=True):
        in_row, t = causal_segment_mask(segments[None], window)[0, 0], np.arange(24)
        same = (segments[:, None] == segments) | ((segments[:, None] > 0) & (segments == SHARED))
        apart = positions[:, None] - positions
        of_its_own = same & (t[:, None] >= t) & (apart < window)
        wrong = ((of_its_own != in_row) & (segments[:, None] > 0)).any()
        assert bool(astray(positions[None], segments[None], window).all()) == wrong
        one = Batch(
            *(field[None] for field in (segments, segments, positions, positions, segments))
        )
        assert bool(beyond_limits(one, window=window)) == wrong


@pytest.mark.parametrize("execution", [Execution(attention="splash"), Execution()])
def test_a_back_end_that_cannot_see_openings_gives_nan_for_rows_that_share_one(execution):
    rows = sharing([12, 11], 5, 24)
    wrong = tiny(None, execution)
    of_model = merge(wrong.graphdef, wrong.base)._wrong(rows.positions, rows.segments, None)
    assert (of_model is not None and bool(of_model.all())) == (execution.attention == "splash")


def test_the_limit_that_a_row_exceeds_is_named():
    kept, far = sharing([9, 10], 4, 48), sharing([13, 12, 11], 5, 48)
    batch = jax.tree.map(lambda *leaves: np.concatenate(leaves), kept, far)
    most = int((batch.mask[1] > 0).sum())
    assert beyond_limits(batch, most, RowLimits(8, 5, 3)) == []
    assert beyond_limits(batch, most - 1, RowLimits(7, 4, 2)) == [
        f"row 1 trains {most} positions, capacity is {most - 1}",
        "row 1 has a document of 8 positions of its own, reach.document is 7",
        "row 1 shares a prefix of 5 positions, reach.prefix is 4",
        "row 1 holds 3 documents, reach.documents is 2",
    ]


def test_a_short_row_is_looked_at_whole():
    batch = batch_of([documents([5, 6, 3])], 16)
    assert scores_within_limits(RowLimits(6), None, 16) >= 16 * 16
    parts = tiny()
    free, bounded = (sft_loss(parts.graphdef, reach=reach) for reach in (None, RowLimits(6)))
    assert float(free(parts.base, {}, batch)[0].total) == float(
        bounded(parts.base, {}, batch)[0].total
    )
