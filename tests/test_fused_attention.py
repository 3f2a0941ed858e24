"""Fused attention against the plain one: packed documents, windows, caps, grouped heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import BATCH, MeshConfig, make_mesh
from hen_jax.models.dot_product import attend, causal_segment_mask
from hen_jax.models.fused_attention import cudnn, kernel_flops, splash

SCALE = 0.3


def inputs(rows: int = 1, length: int = 200, heads: int = 4, kv_heads: int = 2, width: int = 24):
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v = (
        jax.random.normal(key, (rows, length, n, width))
        for key, n in zip(keys, (heads, kv_heads, kv_heads), strict=False)
    )
    ends = np.sort(np.random.default_rng(1).integers(1, length, (rows, 3)), axis=1)
    segments = jnp.asarray((np.arange(length)[None, :, None] >= ends[:, None, :]).sum(-1) + 1)
    return q, k, v, segments.at[:, -9:].set(0)


def value_and_gradients(attention, q, k, v, segments):
    weight = jax.random.normal(jax.random.key(5), q.shape) * (segments > 0)[..., None, None]

    def f(q, k, v):
        out = attention(q, k, v)
        return (out * weight).sum(), out

    gradients, out = jax.jit(jax.grad(f, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return out * (segments > 0)[..., None, None], gradients


@pytest.mark.parametrize(
    ("window", "softcap"), [(None, None), (40, None), (None, 0.5)], ids=["full", "window", "cap"]
)
def test_splash_equals_the_plain_attention_forward_and_backward(window, softcap):
    q, k, v, segments = inputs()
    fused = splash(segments, window, softcap, SCALE, interpret=True)
    mask = causal_segment_mask(segments, window)
    out, gradients = value_and_gradients(fused, q, k, v, segments)
    expected, theirs = value_and_gradients(
        lambda q, k, v: attend(q, k, v, mask, SCALE, softcap), q, k, v, segments
    )
    np.testing.assert_allclose(out, expected, atol=2e-5)
    for gradient, reference in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(gradient, reference, atol=5e-5)


def test_splash_over_a_mesh_equals_splash_on_one_device():
    q, k, v, segments = inputs(rows=4, length=128)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    where = NamedSharding(mesh, PartitionSpec(BATCH, None, "tensor", None))
    spread = [jax.device_put(x, where) for x in (q, k, v)]
    alone = jax.jit(splash(segments, None, None, SCALE, interpret=True))(q, k, v)
    together = jax.jit(splash(segments, None, None, SCALE, mesh, interpret=True))(*spread)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    with pytest.raises(InputError, match="both must divide evenly"):
        splash(segments, None, None, SCALE, mesh)(q[:3], k[:3], v[:3])


def test_kernel_flops_count_the_tiles_that_some_query_sees():
    queries = (3, 8, 1024, 128)  # rows, heads, length, width
    tile = 2 * 2 * 512 * 512 * 128
    assert kernel_flops((None,), "splash_mha_fwd_segmented", queries) == 3 * 8 * 3 * tile
    assert kernel_flops((100,), "splash_mha_fwd_segmented", queries) == 3 * 8 * 3 * tile
    assert kernel_flops((None,), "splash_mha_dkv_segmented", queries) == 3 * 8 * 2 * 5 * tile
    longer = (8, 4096, 128)
    assert kernel_flops((None,), "splash_mha_fwd", longer) == 8 * 36 * tile
    assert kernel_flops((512,), "splash_mha_fwd", longer) == 8 * (8 + 7) * tile
    assert kernel_flops((None,), "other_kernel", queries) == 0.0


def test_cudnn_refuses_a_cap_and_what_it_cannot_compute():
    q, k, v, segments = inputs()
    with pytest.raises(InputError, match="softcap"):
        cudnn(segments, None, 30.0, SCALE)
    with pytest.raises(InputError, match="bfloat16"):
        cudnn(segments, None, None, SCALE)(q, k, v)


def test_cudnn_lowers_for_cuda_with_the_documents_as_a_bias(monkeypatch):
    """Only the version of a library that is not here is made up; nothing is run."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    q, k, v, segments = inputs(length=128, width=64)
    low = [x.astype(jnp.bfloat16) for x in (q, k, v)]

    def f(q, k, v, segments):
        return cudnn(segments, 32, None, SCALE)(q, k, v)

    text = jax.jit(f).trace(*low, segments).lower(lowering_platforms=("cuda",)).as_text()
    (call,) = [line for line in text.splitlines() if "custom_call @__cudnn$fmhaScaleBias" in line]
    assert "tensor<1x1x128x128xbf16>" in call
    assert "sliding_window_length" in call
    assert "32" in call
