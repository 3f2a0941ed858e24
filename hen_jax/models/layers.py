"""The parts of a block. Each parameter is declared once, with its logical axes.

Parameters carry `axes`, one logical name per dimension (without the stacked layer dimension, which
`decoder.py` adds); sharding, counting and shape tables fold over them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, PRNGKeyArray

from hen_jax.core.types import Array
from hen_jax.models.config import DecoderConfig, LoraConfig
from hen_jax.models.products import matmul, save_cotangent, save_for_backward, turned_matmul
from hen_jax.models.quantised import quantised
from hen_jax.models.rope import rope_amplitude, rotate

Carry = TypeVar("Carry")
Attend = Callable[[Array, Array, Array], tuple[Array, Carry]]
"""`(q [B T N H], k [B T K H], v [B T K H]) -> (out [B T N H], what the caller keeps)`."""


Gate = Float[Array, "B #T R"]
"""The factor on each column of `x A`, by row; see `adapters.experts`."""

AFTER_ATTENTION = "after_attention"
"""The name of the residual stream between a block's halves, for rematerialisation policies."""

recomputed = partial(jax.checkpoint, prevent_cse=False)
"""Elementwise work of which the backward pass keeps the arguments only, and does it again."""

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


class Linear(nnx.Module):
    """`y = x W`, plus a bias, plus `scale (x A) B` where asked for; `B` and bias start at zero.

    A `gate` takes the place of `scale`: a factor for each column of `x A`. Where the adapters of
    several experts stand side by side in `A` and `B`, it chooses among them row by row.

    With `int8` the kernel is stored in eight bits, with a scale per output; see `quantised.py`.
    """

    def __init__(
        self,
        key: PRNGKeyArray,
        shape: tuple[int, int],
        axes: tuple[str, str],
        lora: LoraConfig | None,
        dtype: jnp.dtype,
        bias: bool = False,
        int8: bool = False,
    ):
        kernel_key, adapter_key = jax.random.split(key)
        fan_in, fan_out = shape
        self.dtype, self.width = dtype, fan_out
        kernel = _normal(kernel_key, shape, fan_in)
        self.kernel_scale = nnx.data(None)
        if int8:
            kernel, scale = quantised(kernel)
            self.kernel_scale = nnx.Param(scale, axes=axes[1:])
        self.kernel = nnx.Param(kernel, axes=axes)
        self.turned = False  # the kernel lies [O, I]: see `sampling.weights`
        # The kernels of layers that read the same, from this one on, in place of their own.
        self.joined: nnx.Param | None = nnx.data(None)
        self.bias = nnx.Param(jnp.zeros((fan_out,)), axes=axes[1:]) if bias else nnx.data(None)
        self.scale = 0.0
        self.lora_a = self.lora_b = nnx.data(None)
        if lora is not None:
            self.scale = lora.scale
            a, b = jnp.zeros((fan_in, lora.rank)), jnp.zeros((lora.rank, fan_out))
            if lora.init == "b_random":
                b = _normal(adapter_key, b.shape, lora.rank)
            else:
                a = _normal(adapter_key, a.shape, fan_in)
            self.lora_a = nnx.LoRAParam(a, axes=(axes[0], "rank"))
            self.lora_b = nnx.LoRAParam(b, axes=("rank", axes[1]))

    def __call__(
        self,
        x: Float[Array, "B T I"],
        low: Float[Array, "B T R"] | None = None,
        gate: Gate | None = None,
        wide: Float[Array, "B T O"] | None = None,
    ) -> Float[Array, "B T O"]:
        """Products in the compute dtype; `low` is `x A` and `wide` is `x W`, where it is known."""
        y = self.product(x, self.kernel) if wide is None else wide
        if self.kernel_scale is not None:
            y = (y * self.kernel_scale[...]).astype(self.dtype)
        if self.bias is not None:
            y = y + self.bias[...].astype(self.dtype)
        if self.lora_a is not None and self.lora_b is not None:
            narrow = matmul(x, self.lora_a[...].astype(self.dtype)) if low is None else low
            scale = self.scale if gate is None else gate.astype(self.dtype)
            y = y + matmul(scale * save_for_backward(narrow), self.lora_b[...].astype(self.dtype))
        return save_for_backward(y)

    def product(self, x: Float[Array, "B T I"], kernel: nnx.Param) -> Float[Array, "B T O"]:
        """`x` times a kernel that lies as this layer's does."""
        product = turned_matmul if self.turned else matmul
        return product(x, kernel[...].astype(self.dtype))


def side_by_side(
    x: Float[Array, "B T I"], *layers: Linear, gate: Gate | None = None
) -> list[Float[Array, "B T O"]]:
    """What each layer makes of the same `x`, with one product for the `A` of all their adapters.

    With adapters of rank 16 on q, k and v it is one of rank 48 in place of three of rank 16. Where
    the layers' kernels are joined it is one product for all of them, too.
    """
    wides: Sequence[Array | None] = [None] * len(layers)
    if layers[0].joined is not None:
        ends = np.cumsum([one.width for one in layers])
        wides = jnp.split(layers[0].product(x, layers[0].joined), ends[:-1], axis=-1)
    factors = [one.lora_a[...].astype(one.dtype) for one in layers if one.lora_a is not None]
    if len(factors) < 2:
        return [one(x, gate=gate, wide=wide) for one, wide in zip(layers, wides, strict=True)]
    ends = np.cumsum([factor.shape[1] for factor in factors])
    lows = iter(jnp.split(matmul(x, jnp.concatenate(factors, axis=1)), ends[:-1], axis=-1))
    return [
        one(x, wide=wide) if one.lora_a is None else one(x, next(lows), gate, wide)
        for one, wide in zip(layers, wides, strict=True)
    ]


class RMSNorm(nnx.Module):
    """`x / rms(x) * scale` in float32 (Zhang and Sennrich, 2019); in Gemma times `1 + scale`."""

    def __init__(self, width: int, config: DecoderConfig, axis: str = "embed"):
        self.eps, self.unit_offset = config.norm_eps, config.unit_offset_norm
        start = jnp.zeros if self.unit_offset else jnp.ones
        self.scale = nnx.Param(start((width,)), axes=(axis,))

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Keeps the dtype of `x`."""
        return recomputed(self._normed)(x, self.scale[...])

    def _normed(self, x: Float[Array, "*B D"], scale: Float[Array, "D"]) -> Float[Array, "*B D"]:
        wide, scale = x.astype(jnp.float32), scale.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return (wide * (1.0 + scale if self.unit_offset else scale)).astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query attention; the caller decides where keys and values live (`attend`)."""

    def __init__(self, key: PRNGKeyArray, config: DecoderConfig, linear: Callable[..., Linear]):
        keys = jax.random.split(key, 4)
        D, N, K, H = config.width, config.heads, config.kv_heads, config.head_dim
        self.head_dim, self.amplitude = H, rope_amplitude(config)
        self.q = linear("q", keys[0], (D, N * H), ("embed", "heads"), bias=config.qkv_bias)
        self.k = linear("k", keys[1], (D, K * H), ("embed", "kv_heads"), bias=config.qkv_bias)
        self.v = linear("v", keys[2], (D, K * H), ("embed", "kv_heads"), bias=config.qkv_bias)
        self.o = linear("o", keys[3], (N * H, D), ("heads", "embed"))
        self.q_norm = self.k_norm = nnx.data(None)
        if config.qk_norm:
            self.q_norm, self.k_norm = RMSNorm(H, config, "head"), RMSNorm(H, config, "head")

    def __call__(
        self,
        x: Float[Array, "B T D"],
        angles: Float[Array, "B T P"],
        attend: Attend[Carry],
        gate: Gate | None = None,
    ) -> tuple[Float[Array, "B T D"], Carry]:
        """The attended values, projected back, and what `attend` keeps."""
        B, T, _ = x.shape
        q, k, v = (
            out.reshape(B, T, -1, self.head_dim)
            for out in side_by_side(x, self.q, self.k, self.v, gate=gate)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = (rotate(heads, angles, self.amplitude) for heads in (q, k))
        out, carry = attend(*map(save_cotangent, (q, k, v)))
        return self.o(save_for_backward(out).reshape(B, T, -1), gate=gate), carry


class Mlp(nnx.Module):
    """`down(f(gate(x)) * up(x))`: SwiGLU or GeGLU (Shazeer, 2020)."""

    def __init__(self, key: PRNGKeyArray, config: DecoderConfig, linear: Callable[..., Linear]):
        keys = jax.random.split(key, 3)
        D, F = config.width, config.mlp_width
        self.activation = config.activation
        self.gate = linear("gate", keys[0], (D, F), ("embed", "mlp"))
        self.up = linear("up", keys[1], (D, F), ("embed", "mlp"))
        self.down = linear("down", keys[2], (F, D), ("mlp", "embed"))

    def __call__(self, x: Float[Array, "B T D"], gate: Gate | None = None) -> Float[Array, "B T D"]:
        """Position by position; `gate` is that of the adapters."""
        both = side_by_side(x, self.gate, self.up, gate=gate)
        return self.down(recomputed(self._gated)(*both), gate=gate)

    def _gated(self, gate: Float[Array, "B T F"], up: Float[Array, "B T F"]) -> Array:
        # In float32, rounded once: on a CPU an exponential of bfloat16 takes three times as long.
        wide = ACTIVATIONS[self.activation](gate.astype(jnp.float32)) * up.astype(jnp.float32)
        return wide.astype(gate.dtype)


class Block(nnx.Module):
    """Pre-norm residual block: attention, then mlp; Gemma norms what they give as well."""

    def __init__(
        self,
        key: PRNGKeyArray,
        config: DecoderConfig,
        lora: LoraConfig | None,
        dtype: jnp.dtype,
        int8: bool = False,
    ):
        def linear(
            name: str, key: PRNGKeyArray, shape: tuple, axes: tuple, bias: bool = False
        ) -> Linear:
            adapted = lora is not None and name in lora.targets
            return Linear(key, shape, axes, lora if adapted else None, dtype, bias, int8)

        attn_key, mlp_key = jax.random.split(key)
        self.attn_norm = RMSNorm(config.width, config)
        self.attn = Attention(attn_key, config, linear)
        self.mlp_norm = RMSNorm(config.width, config)
        self.mlp = Mlp(mlp_key, config, linear)
        self.attn_post_norm = self.mlp_post_norm = nnx.data(None)
        if config.post_norms:
            self.attn_post_norm = RMSNorm(config.width, config)
            self.mlp_post_norm = RMSNorm(config.width, config)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        angles: Float[Array, "B T P"],
        attend: Attend[Carry],
        gate: Gate | None = None,
    ) -> tuple[Float[Array, "B T D"], Carry]:
        """The residual stream after this block, and what `attend` keeps."""
        attended, carry = self.attn(self.attn_norm(x), angles, attend, gate)
        x = x + (attended if self.attn_post_norm is None else self.attn_post_norm(attended))
        x = checkpoint_name(x, AFTER_ATTENTION)
        changed = self.mlp(self.mlp_norm(x), gate)
        return x + (changed if self.mlp_post_norm is None else self.mlp_post_norm(changed)), carry


def _normal(key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int) -> Array:
    return jax.random.normal(key, shape, jnp.float32) * fan_in**-0.5
