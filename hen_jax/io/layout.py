"""Between our stacked leaf `[L, in, out]` and the per-layer `[out, in]` tensors of other tools."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.trees import flatten
from hen_jax.core.types import Array, Tree
from hen_jax.io import names, shards
from hen_jax.models.config import DecoderConfig


def stack(
    row: names.Weight, config: DecoderConfig, tensors: Iterable[np.ndarray], dtype: str | None
) -> np.ndarray:
    """The leaf of `row` from its tensors, first layer first, rounded to `dtype` unless None.

    Raises:
      InputError: `dtype` is None and the layers are stored in different dtypes.
    """
    leaf = np.empty(0)
    for layer, tensor in enumerate(tensors):
        if layer == 0:
            stored = tensor.dtype if dtype is None else shards.dtype_named(dtype)
            leaf = np.empty(names.shapes(config)[row.path], stored)
        if dtype is None and tensor.dtype != leaf.dtype:
            raise InputError(
                f"{row.name} is stored as {leaf.dtype} in layer 0 and {tensor.dtype} in layer "
                f"{layer}; name the dtype that all layers shall have"
            )
        target = leaf[layer] if row.stacked else leaf
        target[...] = tensor.T if row.transposed else tensor
    return leaf


def unstack(
    row: names.Weight, config: DecoderConfig, leaf: Array, dtype: str | None
) -> Iterator[tuple[str, np.ndarray]]:
    """The inverse of `stack`: `(Hugging Face name, tensor)` per layer."""
    names.require_shape(leaf.shape, names.shapes(config)[row.path], row.path)
    host = np.asarray(leaf)
    stored = shards.dtype_named(dtype or host.dtype.name)
    for layer, name in enumerate(names.expand(row, row.name, config)):
        tensor = host[layer] if row.stacked else host
        # A C-ordered copy: safetensors writes the buffer as it lies, strides ignored.
        yield name, (tensor.T if row.transposed else tensor).astype(stored, order="C")


def hf_tensors(
    leaves: Iterable[tuple[str, Array]], config: DecoderConfig, dtype: str | None
) -> Iterator[tuple[str, np.ndarray]]:
    """All Hugging Face tensors of `leaves`, one leaf at a time.

    Raises:
      InputError: a leaf that the model lacks, has twice or has in another shape, or a missing one.
    """
    waiting = {row.path: row for row in names.table(config)}
    for path, leaf in leaves:
        names.require_names({path}, {path} & set(waiting), "the parameter tree", "remove them")
        yield from unstack(waiting.pop(path), config, leaf, dtype)
    names.require_names(set(), set(waiting), "the parameter tree", "a model needs all of them")


def leaves_of(params: Tree | Iterable[tuple[str, Array]]) -> Iterable[tuple[str, Array]]:
    """`(path, leaf)` pairs of a tree; pairs that come lazily are passed on as they are."""
    return flatten(params).items() if isinstance(params, Mapping) else params
