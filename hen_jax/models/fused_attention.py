"""Attention as one kernel that never writes the scores to memory: splash on TPU, cuDNN on GPU."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash_kernel,
)
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Int

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import BATCH, rows_over
from hen_jax.core.types import Array
from hen_jax.models.products import KEPT

LANES = 128
BLOCKS = (512, 256, 128)
"""Queries and keys per tile of the forward kernel: the largest that divides the length."""

BACKWARD_BLOCKS = (1024, *BLOCKS)
"""Keys per tile of the backward kernel: as many partial sums of dq are held as there are tiles."""


def splash(
    segments: Int[Array, "B T"],
    window: int | None,
    softcap: float | None,
    scale: float,
    mesh: Mesh | None = None,
    interpret: bool = False,
) -> Callable[[Array, Array, Array], Array]:
    """Causal attention within documents by the splash kernel (Pallas, TPU only).

    Query `t` sees key `s` where `segments` are equal and `0 <= t - s < window`. Rows are padded to
    a multiple of 128 with segment 0, which nothing before it can see. On a mesh each device runs
    it on its rows and heads. No forward-mode or second derivative: meta-gradients need "xla" or
    "chunked".

    Args:
      segments: document of each position; 0 is padding.
      window: how many positions a query sees, itself included; None is all before it.
      softcap: scores become `softcap tanh(score / softcap)`.
      scale: the factor on the scores.
      mesh: where q, k and v live: rows over `data` and `fsdp`, heads over `tensor`.
      interpret: run the kernel's steps as plain operations, for tests without a TPU.
    """

    def attend(q: Array, k: Array, v: Array, segments: Array) -> Array:
        T = q.shape[1]
        padding = -T % LANES
        q, k, v = (
            jnp.pad(x, [(0, 0), (0, padding), (0, 0), (0, 0)]).swapaxes(1, 2)
            for x in (q * jnp.asarray(scale, q.dtype), k, v)
        )
        ids = jnp.pad(segments, [(0, 0), (0, padding)])
        kernel = _kernel(q.shape[1], T + padding, window, softcap, interpret)
        one = lambda q, k, v, ids: kernel(q, k, v, splash_kernel.SegmentIds(ids, ids))  # noqa: E731
        return jax.vmap(one)(q, k, v, ids).swapaxes(1, 2)[:, :T]

    if mesh is None or mesh.size == 1:
        return lambda q, k, v: attend(q, k, v, segments)
    heads, rows = PartitionSpec(BATCH, None, "tensor", None), PartitionSpec(BATCH, None)

    def sharded(q: Array, k: Array, v: Array) -> Array:
        _require_divisible(q, k, mesh)
        # The kernel's outputs carry no record of which mesh axes they vary over.
        run = jax.shard_map(
            attend, mesh=mesh, in_specs=(heads,) * 3 + (rows,), out_specs=heads, check_vma=False
        )
        return run(q, k, v, segments)

    return sharded


def _kernel(
    heads: int, length: int, window: int | None, softcap: float | None, interpret: bool
) -> Callable[..., Array]:
    if window is None or window >= length:
        mask = splash_mask.CausalMask((length, length))
    else:
        mask = splash_mask.LocalMask((length, length), (window - 1, 0), 0)
    block = next(size for size in BLOCKS if length % size == 0)
    backward = next(size for size in BACKWARD_BLOCKS if length % size == 0)
    # The mask's tables are constants; made under a trace they must not become part of it.
    with jax.ensure_compile_time_eval():
        return splash_kernel.make_splash_mha(
            splash_mask.MultiHeadMask([mask] * heads),
            block_sizes=splash_kernel.BlockSizes(
                block_q=block,
                block_kv=block,
                block_kv_compute=block,
                block_q_dkv=block,
                block_kv_dkv=backward,
                block_kv_dkv_compute=block,
                use_fused_bwd_kernel=True,
            ),
            head_shards=1,
            q_seq_shards=1,
            attn_logits_soft_cap=softcap,
            residual_checkpoint_name=KEPT,
            interpret=interpret,
        )


def kernel_flops(windows: Sequence[int | None], name: str, queries: tuple[int, ...]) -> float:
    """Floating-point operations of one call of a splash kernel, as its tiles run.

    The forward kernel forms two products per tile, the backward one five (scores again, dv, dp, dq,
    dk); tiles that no query sees are left out. Where layers have different windows the call is
    taken to be their average.

    Args:
      windows: of each layer; None sees everything.
      name: of the kernel; 0 is returned for one that is not splash's.
      queries: shape of its queries, `[..., N, T, H]`.
    """
    products = {"fwd": 2, "dkv": 5}.get(name.removeprefix("splash_mha_").split("_")[0])
    if not name.startswith("splash_mha_") or products is None:
        return 0.0
    *rows, heads, length, head_dim = queries
    keys = BLOCKS if products == 2 else BACKWARD_BLOCKS
    q, k = (next(size for size in sizes if length % size == 0) for sizes in (BLOCKS, keys))
    tiles = np.mean([_tiles(length, window, q, k) for window in windows])
    return float(2 * products * math.prod(rows) * heads * tiles * q * k * head_dim)


def _tiles(length: int, window: int | None, q: int, k: int) -> int:
    """Tiles of `q` queries and `k` keys in which some query sees some key."""
    first_query = np.arange(0, length, q)[:, None]
    first_key = np.arange(0, length, k)[None, :]
    seen = first_key <= first_query + q - 1
    if window is not None:
        seen &= first_query - (first_key + k - 1) < window
    return int(seen.sum())


def _require_divisible(q: Array, k: Array, mesh: Mesh) -> None:
    rows = rows_over(mesh)
    if q.shape[0] % rows or k.shape[2] % mesh.shape["tensor"]:
        raise InputError(
            f"execution.attention 'splash' spreads {q.shape[0]} rows over {rows} devices and "
            f"{k.shape[2]} key heads over {mesh.shape['tensor']}; both must divide evenly"
        )


def cudnn(
    segments: Int[Array, "B T"], window: int | None, softcap: float | None, scale: float
) -> Callable[[Array, Array, Array], Array]:
    """Causal attention within documents by cuDNN's flash attention (NVIDIA GPUs only).

    Documents reach the kernel as a bias `[B, 1, T, T]` in the dtype of q: exact, at the price of
    reading it; padding positions see each other.

    Raises:
      InputError: a softcap or a float32 input, neither of which the kernel knows.
    """
    if softcap is not None:
        raise InputError(
            f"execution.attention 'cudnn' cannot cap scores (softcap {softcap}); "
            "use 'xla' or 'chunked'"
        )
    same = segments[:, None, :, None] == segments[:, None, None, :]

    def attend(q: Array, k: Array, v: Array) -> Array:
        if q.dtype not in (jnp.bfloat16, jnp.float16):
            raise InputError(
                f"execution.attention 'cudnn' computes in 16 bits, not {q.dtype}; "
                "set execution.compute_dtype to bfloat16"
            )
        return jax.nn.dot_product_attention(
            q,
            k,
            v,
            mask=same,
            scale=scale,
            is_causal=True,
            local_window_size=None if window is None else (window - 1, 0),
            implementation="cudnn",
        )

    return attend
