"""Layers of two kinds in one scan: some see a window, others everything."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from hen_jax.core.types import Array
from hen_jax.models.config import DecoderConfig


class Kinds(NamedTuple):
    """The windows that occur in a model, and which of them each layer has."""

    windows: tuple[int | None, ...]  # one, or two where layers alternate
    of_layer: np.ndarray | None  # [L] int32, an index into `windows`; None where there is one


def layer_kinds(config: DecoderConfig) -> Kinds:
    """Windows 4 4 None 4 are the kinds `(None, 4)` and the layers `1 1 0 1`."""
    windows = config.windows
    kinds = tuple(sorted(set(windows), key=lambda window: (window is not None, window)))
    if len(kinds) == 1:
        return Kinds(kinds, None)
    return Kinds(kinds, np.asarray([kinds.index(window) for window in windows], np.int32))


def select_kind(kind: Array | int | None, values: Sequence[Array]) -> Array:
    """The array of `kind`; of the only one where there is one."""
    if kind is None or isinstance(kind, int):
        return values[kind or 0]
    return jax.lax.select_n(kind, *values)


def switch_kind(kind: Array | None, functions: Sequence[Callable], *arguments: Array) -> Array:
    """The function of `kind`, and no other, applied to the arguments."""
    if kind is None:
        return functions[0](*arguments)
    return jax.lax.switch(kind, functions, *arguments)
