"""Places for adapters side by side in one decoder, filled and emptied without a compilation.

The decoder is built with an adapter of `places * rank` columns, all zero: the base. An adapter that
is put into a place takes its columns; each row of a batch says by its gate which columns it uses.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, check_ranges
from hen_jax.core.rounding import rounded
from hen_jax.core.trees import flatten, map_with_path
from hen_jax.core.types import Tree
from hen_jax.models.config import LoraConfig
from hen_jax.sampling.requests import BASE, AdapterMix

W = TypeVar("W")

_LEAF = re.compile(r"(?:model/)?blocks/(?:(\d+)/)?(.+)/(lora_[ab])/value")
"""The path of an adapter's leaf in `sampling.weights.Weights`, of all layers or of one."""


@dataclasses.dataclass(frozen=True)
class Shelf:
    """How much room there is for adapters.

    Raises:
      InputError: no place, or no column.
    """

    places: Count = 4
    rank: Count = 16  # columns of a place: no adapter may have a larger rank
    targets: tuple[str, ...] = ("q", "k", "v", "o", "gate", "up", "down")

    def __post_init__(self):
        check_ranges(self)

    @property
    def columns(self) -> int:
        """Of all places together."""
        return self.places * self.rank

    @property
    def lora(self) -> LoraConfig:
        """What the decoder is built with; each adapter's own scale is in the gate."""
        return LoraConfig(self.columns, float(self.columns), self.targets)


class LoadedExpert(NamedTuple):
    """An adapter in its place."""

    name: str
    key: str  # names its contents, whatever it is called
    place: int
    lora: LoraConfig
    source: str  # where it was read from


class Adapter(NamedTuple):
    """An adapter in memory: leaves `.../lora_a [L, in, R]` and `.../lora_b [L, R, out]`."""

    lora: LoraConfig
    leaves: Tree


def content_key(adapter: Adapter) -> str:
    """16 hexadecimal digits of its numbers, names and scale."""
    digest = hashlib.sha256(repr(adapter.lora.scale).encode())
    for path, leaf in sorted(flatten(adapter.leaves).items()):
        numbers = np.ascontiguousarray(leaf, np.float32)
        digest.update(f"{path} {numbers.shape}".encode() + numbers.tobytes())
    return digest.hexdigest()[:16]


def require_place(adapter: Adapter, shelf: Shelf, name: str) -> None:
    """Refuses an adapter that fits no place, or would spoil other rows. Raises `InputError`."""
    lora, leaves = adapter
    if lora.rank > shelf.rank:
        raise InputError(
            f"{name} has rank {lora.rank}, and a place has {shelf.rank} columns; start the server "
            f"with --max-rank {lora.rank}"
        )
    if strange := sorted(set(lora.targets) - set(shelf.targets)):
        raise InputError(f"{name} adapts {', '.join(strange)}, for which there is no place")
    for path, leaf in flatten(leaves).items():
        if path.rpartition("/")[2] not in ("lora_a", "lora_b"):
            raise InputError(f"{name} holds {path}, which is no part of a language model's adapter")
        # In a product over all columns 0 times NaN is NaN, in the rows of others too.
        if not np.isfinite(np.asarray(leaf, np.float32)).all():
            raise InputError(f"{name} holds numbers in {path} that are not finite; train it again")


def put(weights: W, shelf: Shelf, place: int, adapter: Adapter | None) -> W:
    """Weights with the adapter in its place, the rest of the place zero; None empties it.

    All other leaves are the same arrays as before.
    """
    leaves = {} if adapter is None else flatten(adapter.leaves)
    columns = slice(place * shelf.rank, (place + 1) * shelf.rank)

    def changed(path: str, leaf: jax.Array) -> jax.Array:
        found = _LEAF.fullmatch(path)
        if found is None:
            return leaf
        layer, layers, kind = found.groups()
        axis = leaf.ndim - (1 if kind == "lora_a" else 2)
        whole = np.array(leaf)
        view = np.moveaxis(whole, axis, 0)[columns]
        view[:] = 0
        new = leaves.get(f"blocks/{layers}/{kind}")
        if new is not None:
            new = np.asarray(new) if layer is None else np.asarray(new)[int(layer)]
            new = np.moveaxis(rounded(new, whole.dtype, path), axis, 0)
            view[: len(new)] = new
        # As free to move as it was: else the next step would be compiled anew.
        return jax.device_put(whole, leaf.sharding) if leaf.committed else jnp.asarray(whole)

    return map_with_path(changed, weights)


def mix_of(
    shelf: Shelf, experts: Mapping[str, LoadedExpert], weights: Mapping[str, float]
) -> AdapterMix:
    """What makes a row use these experts, with these weights; none of them: the base.

    Rank 2 and scale 3 in the second of two places of 4 columns give the gate
    `[0, 0, 0, 0, 3, 3]`.
    """
    used = {name: weight for name, weight in weights.items() if weight}
    if not used:
        return BASE
    gate, keys = np.zeros(shelf.columns, np.float32), []
    for name, weight in used.items():
        expert = experts[name]
        start = expert.place * shelf.rank
        gate[start : start + expert.lora.rank] = weight * expert.lora.scale
        keys.append(f"{expert.key}*{weight:g}")
    return AdapterMix("+".join(sorted(keys)), tuple(np.trim_zeros(gate, "b").tolist()))


def uses(mix: AdapterMix, shelf: Shelf, place: int) -> bool:
    """Whether a row of that mix reads the columns of a place."""
    return any(mix.gate[place * shelf.rank : (place + 1) * shelf.rank])
