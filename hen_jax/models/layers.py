"""The parts of a block. Each parameter is declared once, with its logical axes.

Parameters carry `axes`, one logical name per dimension (without the stacked layer dimension, which
`decoder.py` adds); sharding, counting and shape tables fold over them.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, PRNGKeyArray

from hen_jax.core.types import Array
from hen_jax.models.config import DecoderConfig, LoraConfig
from hen_jax.models.products import product
from hen_jax.models.rope import rotate

Carry = TypeVar("Carry")
Attend = Callable[[Array, Array, Array], tuple[Array, Carry]]
"""`(q [B T N H], k [B T K H], v [B T K H]) -> (out [B T N H], what the caller keeps)`."""


class Linear(nnx.Module):
    """`y = x W`, plus `scale (x A) B` where an adapter is asked for; `B` starts at zero."""

    def __init__(
        self,
        key: PRNGKeyArray,
        shape: tuple[int, int],
        axes: tuple[str, str],
        lora: LoraConfig | None,
        dtype: jnp.dtype,
    ):
        kernel_key, adapter_key = jax.random.split(key)
        fan_in, fan_out = shape
        self.dtype = dtype
        self.kernel = nnx.Param(_normal(kernel_key, shape, fan_in), axes=axes)
        self.scale = 0.0
        self.lora_a = self.lora_b = nnx.data(None)
        if lora is not None:
            self.scale = lora.scale
            a = _normal(adapter_key, (fan_in, lora.rank), fan_in)
            self.lora_a = nnx.LoRAParam(a, axes=(axes[0], "rank"))
            self.lora_b = nnx.LoRAParam(jnp.zeros((lora.rank, fan_out)), axes=("rank", axes[1]))

    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B T O"]:
        """Both products in the compute dtype."""
        y = product(x, self.kernel[...].astype(self.dtype))
        if self.lora_a is not None and self.lora_b is not None:
            low = product(x, self.lora_a[...].astype(self.dtype))
            y = y + product(self.scale * low, self.lora_b[...].astype(self.dtype))
        return y


class RMSNorm(nnx.Module):
    """`x / rms(x) * scale`, in float32 (Zhang and Sennrich, 2019)."""

    def __init__(self, width: int, eps: float):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones((width,)), axes=("embed",))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Keeps the dtype of `x`."""
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return (wide * self.scale[...].astype(jnp.float32)).astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query attention; where keys and values live is the caller's affair (`attend`)."""

    def __init__(self, key: PRNGKeyArray, config: DecoderConfig, linear: Callable[..., Linear]):
        keys = jax.random.split(key, 4)
        D, N, K, H = config.width, config.heads, config.kv_heads, config.head_dim
        self.head_dim = H
        self.q = linear("q", keys[0], (D, N * H), ("embed", "heads"))
        self.k = linear("k", keys[1], (D, K * H), ("embed", "kv_heads"))
        self.v = linear("v", keys[2], (D, K * H), ("embed", "kv_heads"))
        self.o = linear("o", keys[3], (N * H, D), ("heads", "embed"))

    def __call__(
        self, x: Float[Array, "B T D"], angles: Float[Array, "B T P"], attend: Attend[Carry]
    ) -> tuple[Float[Array, "B T D"], Carry]:
        """The attended values, projected back, and what `attend` keeps."""
        B, T, _ = x.shape
        q, k, v = (f(x).reshape(B, T, -1, self.head_dim) for f in (self.q, self.k, self.v))
        out, carry = attend(rotate(q, angles), rotate(k, angles), v)
        return self.o(out.reshape(B, T, -1)), carry


class Mlp(nnx.Module):
    """`down(silu(gate(x)) * up(x))` (SwiGLU; Shazeer, 2020)."""

    def __init__(self, key: PRNGKeyArray, config: DecoderConfig, linear: Callable[..., Linear]):
        keys = jax.random.split(key, 3)
        D, F = config.width, config.mlp_width
        self.gate = linear("gate", keys[0], (D, F), ("embed", "mlp"))
        self.up = linear("up", keys[1], (D, F), ("embed", "mlp"))
        self.down = linear("down", keys[2], (F, D), ("mlp", "embed"))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Position by position."""
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class Block(nnx.Module):
    """Pre-norm residual block: attention, then mlp."""

    def __init__(
        self, key: PRNGKeyArray, config: DecoderConfig, lora: LoraConfig | None, dtype: jnp.dtype
    ):
        def linear(name: str, key: PRNGKeyArray, shape: tuple, axes: tuple) -> Linear:
            adapted = lora is not None and name in lora.targets
            return Linear(key, shape, axes, lora if adapted else None, dtype)

        attn_key, mlp_key = jax.random.split(key)
        self.attn_norm = RMSNorm(config.width, config.norm_eps)
        self.attn = Attention(attn_key, config, linear)
        self.mlp_norm = RMSNorm(config.width, config.norm_eps)
        self.mlp = Mlp(mlp_key, config, linear)

    def __call__(
        self, x: Float[Array, "B T D"], angles: Float[Array, "B T P"], attend: Attend[Carry]
    ) -> tuple[Float[Array, "B T D"], Carry]:
        """The residual stream after this block, and what `attend` keeps."""
        attended, carry = self.attn(self.attn_norm(x), angles, attend)
        x = x + attended
        return x + self.mlp(self.mlp_norm(x)), carry


def _normal(key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int) -> Array:
    return jax.random.normal(key, shape, jnp.float32) * fan_in**-0.5
