"""Building leaves `[L, in, out]` from one layer's `[out, in]` at a time, in numpy or on devices."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from hen_jax.core.mesh import Shardings
from hen_jax.core.types import Array
from hen_jax.io.names import Weight
from hen_jax.models.quantised import is_quantised, quantised, scale_path

PIECE = 8 * 2**20
"""Bytes of a tensor that are sent at a time. The allocator gives memory of this size again and
again; of larger pieces every page would be asked of the system anew, which takes longer than the
copy."""


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
    row, where = leaf.row, shardings[leaf.row.path]
    names = [row.path]
    if int8 and is_quantised(row.path):
        names.append(scale_path(row.path))
    for name, shape, dtype in zip(names, *_shapes(leaf, len(names) > 1), strict=True):
        if name not in leaves:
            leaves[name] = _zeros(shardings[name], shape, _written_as(dtype, where))()
    axes = (*where.spec, *[None] * (len(leaf.shape) - len(where.spec)))[int(row.stacked) :]
    lying = NamedSharding(where.mesh, PartitionSpec(*axes))
    stored = NamedSharding(where.mesh, PartitionSpec(*axes[::-1])) if row.transposed else lying
    where_all = tuple(shardings[name] for name in names)
    put = _put(where_all, lying, leaf.dtype, row.stacked, row.transposed)
    for first, piece in _pieces(part, stored):
        # Apart from the update: fused with it, a CPU turns a matrix at a third of the speed.
        turned = _turned(lying)(piece) if row.transposed else piece
        written = put([leaves[name] for name in names], turned, leaf.layer, first)
        leaves.update(zip(names, written, strict=True))
    # A CPU's arrays lie where numpy's did: `part` is still read from until this is done.
    leaves[row.path].block_until_ready()


def finished(leaves: dict[str, Array], dtypes: Mapping[str, np.dtype]) -> dict[str, Array]:
    """The leaves that `send` has built, as what they are, where they lie."""
    return {
        path: _viewed(leaf, dtypes[path]) if leaf.dtype == np.uint16 else leaf
        for path, leaf in leaves.items()
    }


def _written_as(dtype: np.dtype, where: NamedSharding) -> np.dtype:
    """The dtype of a leaf while it is written to.

    XLA's CPU back-end updates a part of an array of narrow floats by widening all of it and back.
    """
    on_cpu = next(iter(where.device_set)).platform == "cpu"
    return np.dtype(np.uint16) if on_cpu and dtype.itemsize == 2 else dtype


def _viewed(leaf: Array, dtype: np.dtype) -> Array:
    """The same memory of a CPU with another name of its bits; nothing is copied."""
    shares = [
        jax.device_put(np.asarray(share.data).view(dtype), share.device)
        for share in leaf.addressable_shards
    ]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, shares)


def _shapes(leaf: Leaf, rounded: bool) -> tuple[list[tuple[int, ...]], list[np.dtype]]:
    """Shapes and dtypes of the leaf, and of its scales when it is rounded."""
    if not rounded:
        return [leaf.shape], [leaf.dtype]
    return [leaf.shape, (leaf.shape[0], leaf.shape[-1])], [np.dtype(np.int8), np.dtype(np.float32)]


def _pieces(part: np.ndarray, where: NamedSharding) -> Iterator[tuple[int, Array]]:
    """`part` on the devices of this process, some rows of every device's share at a time.

    Yields which row of a share comes first, and the rows of all shares as one array.
    """
    held = where.shard_shape(part.shape)[0]
    size = max(1, PIECE * held // part.nbytes)
    for first in range(0, held, size):
        shares = [
            jax.device_put(part[index][first : first + size], device)
            for device, index in where.addressable_devices_indices_map(part.shape).items()
        ]
        shape = (len(part) // held * len(shares[0]), *part.shape[1:])
        yield first, jax.make_array_from_single_device_arrays(shape, where, shares)


@functools.lru_cache(maxsize=256)
def _zeros(where: NamedSharding, shape: tuple[int, ...], dtype: np.dtype) -> Callable[[], Array]:
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=where)


@functools.lru_cache(maxsize=256)
def _turned(where: NamedSharding) -> Callable[[Array], Array]:
    return jax.jit(jnp.transpose, out_shardings=where)


@functools.lru_cache(maxsize=256)
def _put(
    leaves: tuple[NamedSharding, ...],
    lying: NamedSharding,
    dtype: np.dtype,
    stacked: bool,
    transposed: bool,
) -> Callable[..., list[Array]]:
    """`(leaves, piece, layer, first) -> leaves` with the piece in its place, rounded to `dtype`, or
    to int8 if the scales' leaf comes with the kernels'.

    Every device writes into its own share: nothing is sent between them.
    """

    def write(leaf: Array, piece: Array, layer: Array, first: Array) -> Array:
        start = (0,) * (piece.ndim - 1) + (first,) if transposed else (first,)
        start += (0,) * (piece.ndim - len(start))
        if stacked:
            piece, start = piece[None], (layer, *start)
        return jax.lax.dynamic_update_slice(leaf, piece, start)

    def put(kept: list[Array], piece: Array, layer: Array, first: Array) -> list[Array]:
        if len(kept) == 1:
            pieces = [piece.astype(dtype).view(kept[0].dtype)]
        else:
            pieces = list(quantised(piece))
        specs = [lying.spec, PartitionSpec(lying.spec[-1])]
        return [
            jax.shard_map(
                write,
                mesh=lying.mesh,
                in_specs=(where.spec, spec, PartitionSpec(), PartitionSpec()),
                out_specs=where.spec,
            )(leaf, piece, layer, first)
            for leaf, piece, where, spec in zip(kept, pieces, leaves, specs, strict=False)
        ]

    return jax.jit(put, donate_argnums=0)
