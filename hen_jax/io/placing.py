"""Building leaves `[L, in, out]` from one layer's `[out, in]` at a time, in numpy or on devices."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from hen_jax.core.types import Array
from hen_jax.io.names import Weight
from hen_jax.models.quantised import is_quantised, quantised, scale_path

Shardings = Mapping[str, NamedSharding]
"""Path of a leaf -> where it lives."""


class Leaf(NamedTuple):
    """A leaf to be built, and which of its layers comes next."""

    row: Weight
    layer: int
    dtype: np.dtype
    shape: tuple[int, ...]


def fill(leaves: dict[str, Array], leaf: Leaf, part: np.ndarray) -> None:
    """Copies `part` into its numpy leaf, which is made when its first part comes."""
    row = leaf.row
    if row.path not in leaves:
        leaves[row.path] = np.empty(leaf.shape, leaf.dtype)
    target = leaves[row.path][leaf.layer] if row.stacked else leaves[row.path]
    target[...] = part.T if row.transposed else part


def send(
    leaves: dict[str, Array], leaf: Leaf, part: np.ndarray, shardings: Shardings, int8: bool
) -> None:
    """Puts `part` into its leaf on the devices; its memory may be written to when this returns.

    With `int8` a block's kernel is rounded there, and its scales are a leaf of their own.
    """
    row, layer = leaf.row, jnp.int32(leaf.layer)
    where = shardings[row.path]
    axes = (*where.spec, *[None] * (len(leaf.shape) - len(where.spec)))[int(row.stacked) :]
    lying = NamedSharding(where.mesh, PartitionSpec(*axes))
    if row.transposed:
        standing = NamedSharding(where.mesh, PartitionSpec(*axes[::-1]))
        # Apart from the update: fused with it, a CPU turns a matrix at a third of the speed.
        sent = _turned(lying)(_shared_out(part, standing))
    else:
        sent = _shared_out(part, lying)
    rounded = int8 and is_quantised(row.path)
    if row.path not in leaves:
        leaves[row.path] = _zeros(where, leaf.shape, np.dtype(np.int8) if rounded else leaf.dtype)()
    if rounded:
        scales = scale_path(row.path)
        if scales not in leaves:
            shape = (leaf.shape[0], leaf.shape[-1])
            leaves[scales] = _zeros(shardings[scales], shape, np.dtype(np.float32))()
        put = _rounded(where, shardings[scales])
        leaves[row.path], leaves[scales] = put(leaves[row.path], leaves[scales], sent, layer)
    else:
        put = _put(where, row.stacked)
        leaves[row.path] = put(leaves[row.path], sent, layer)
    # A CPU's arrays lie where numpy's did: `part` is still read from until this is done.
    leaves[row.path].block_until_ready()


def _shared_out(part: np.ndarray, where: NamedSharding) -> Array:
    """The array on the devices of this process, each of which gets its share alone."""
    shares = []
    for device, index in where.addressable_devices_indices_map(part.shape).items():
        # Blocked on: a share that is not contiguous is copied first, one at a time then.
        shares.append(jax.device_put(part[index], device).block_until_ready())
    return jax.make_array_from_single_device_arrays(part.shape, where, shares)


@functools.lru_cache(maxsize=256)
def _zeros(where: NamedSharding, shape: tuple[int, ...], dtype: np.dtype) -> Callable[[], Array]:
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=where)


@functools.lru_cache(maxsize=256)
def _turned(where: NamedSharding) -> Callable[[Array], Array]:
    return jax.jit(jnp.transpose, out_shardings=where)


@functools.lru_cache(maxsize=256)
def _put(where: NamedSharding, stacked: bool) -> Callable[[Array, Array, Array], Array]:
    def put(leaf: Array, part: Array, layer: Array) -> Array:
        part = part.astype(leaf.dtype)
        if stacked:
            return jax.lax.dynamic_update_index_in_dim(leaf, part, layer, axis=0)
        return jax.lax.dynamic_update_slice(leaf, part, (0,) * part.ndim)

    return jax.jit(put, donate_argnums=0, out_shardings=where)


@functools.lru_cache(maxsize=256)
def _rounded(where: NamedSharding, scales: NamedSharding) -> Callable[..., tuple[Array, Array]]:
    def put(kernels: Array, scale: Array, part: Array, layer: Array) -> tuple[Array, Array]:
        whole = jax.lax.dynamic_update_index_in_dim
        rounded = quantised(part)
        return whole(kernels, rounded.kernel, layer, 0), whole(scale, rounded.scale, layer, 0)

    return jax.jit(put, donate_argnums=(0, 1), out_shardings=(where, scales))
