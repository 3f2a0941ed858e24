"""Between our stacked leaves `[L, in, out]` and other tools' `[out, in]` tensors of a layer."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import Shardings
from hen_jax.core.rounding import require_range
from hen_jax.core.trees import flatten, unflatten
from hen_jax.core.types import Array, Tree
from hen_jax.io import names
from hen_jax.io.placing import Leaf, fill, finished, send
from hen_jax.io.shards import Tensor, buffer_for, dtype_named
from hen_jax.models.config import DecoderConfig


def hf_tensors(params: Tree, config: DecoderConfig, dtype: str | None) -> list[Tensor]:
    """The Hugging Face tensors of a parameter tree; each is fetched when it is asked for.

    Raises:
      InputError: a missing, leftover or mis-shaped leaf.
    """
    leaves, shapes = flatten(params), names.tensor_shapes(config)
    names.require_names(
        set(leaves), set(shapes), "the parameter tree", "it must be a whole model's and no more"
    )
    for path, leaf in leaves.items():
        names.require_shape(leaf.shape, shapes[path], path)
    tensors = []
    for fused in names.fused(config):
        shape = names.fused_shape(fused, config)
        found = leaves[fused.rows[0].path].dtype
        for layer, name in enumerate(names.expand(fused, fused.name, config)):
            fill = partial(_gather, names.layer_parts(fused, config), leaves, layer)
            tensors.append(Tensor(name, shape, np.dtype(found), fill).cast(dtype))
    return tensors


def read_tree(
    tensors: Iterable[Tensor],
    config: DecoderConfig,
    dtype: str | None = None,
    shardings: Shardings | None = None,
    int8: bool = False,
) -> Tree:
    """The parameter tree of a model's Hugging Face tensors, in whatever order they come.

    With `shardings` the leaves are jax arrays that live there. Some megabytes of one tensor at a
    time are copied from the map of its file to the devices, which turn and stack them; tensors
    that are made and not read (GGUF's) are whole in host memory, one at a time. Without, the leaves
    are numpy arrays.

    With `int8`, which needs shardings, the blocks' kernels are rounded on the way, as
    `models.quantised.quantised_base` does.

    Raises:
      InputError: `dtype` is None and the layers of a leaf are stored in different dtypes, or
        `dtype` cannot hold a number of a tensor.
    """
    tensors = list(tensors)
    places = _places(config)
    stored = _stored_dtypes(tensors, places, dtype)
    leaves: dict[str, Array] = {}

    buffer = buffer_for([tensor for tensor in tensors if tensor.mapped is None])
    for tensor in tensors:
        # The pages of a map are the system's cache; a copy of them takes as long as the disk.
        array = tensor.mapped() if tensor.mapped else tensor.load(buffer)
        for place in places[tensor.name]:
            path = place.row.path
            require_range(array[place.span], stored[path], tensor.name)
            leaf = Leaf(place.row, place.layer, stored[path], names.tensor_shapes(config)[path])
            if shardings is None:
                fill(leaves, leaf, array[place.span])
            else:
                send(leaves, leaf, array[place.span], shardings, int8)
    return unflatten(leaves if shardings is None else finished(leaves, stored))


class _Place(NamedTuple):
    row: names.Weight
    span: slice  # within its Hugging Face tensor
    layer: int


def _places(config: DecoderConfig) -> dict[str, list[_Place]]:
    return {
        name: [_Place(row, span, layer) for row, span in names.layer_parts(fused, config)]
        for fused in names.fused(config)
        for layer, name in enumerate(names.expand(fused, fused.name, config))
    }


def _stored_dtypes(
    tensors: list[Tensor], places: dict[str, list[_Place]], dtype: str | None
) -> dict[str, np.dtype]:
    first: dict[str, Tensor] = {}
    for tensor in tensors:
        for place in places[tensor.name]:
            known = first.setdefault(place.row.path, tensor)
            if dtype is None and known.dtype != tensor.dtype:
                raise InputError(
                    f"{known.name} is stored as {known.dtype} and {tensor.name} as {tensor.dtype}; "
                    "name the dtype that all layers shall have"
                )
    target = None if dtype is None else dtype_named(dtype)
    return {path: target or tensor.dtype for path, tensor in first.items()}


def _gather(
    parts: list[tuple[names.Weight, slice]],
    leaves: Mapping[str, Array],
    layer: int,
    out: np.ndarray,
) -> None:
    """One Hugging Face tensor: the rows' layers, turned, one below the other."""
    for row, span in parts:
        leaf = leaves[row.path]
        part = np.asarray(leaf[layer] if row.stacked else leaf)
        out[span] = part.T if row.transposed else part
