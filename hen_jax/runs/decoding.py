"""A model folder, and an adapter's if asked, as weights to decode with."""

from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from hen_jax.adapters.lora import merge_adapter
from hen_jax.core.errors import InputError
from hen_jax.core.rounding import rounded
from hen_jax.core.trees import map_with_path
from hen_jax.core.types import Tree
from hen_jax.io import hf, peft
from hen_jax.models.config import DecoderConfig, Execution, LoraConfig
from hen_jax.models.decoder import abstract, split
from hen_jax.sampling.weights import Weights, weights_from

LONG = 2048
"""Tokens of a prompt from which on attention is worked out in pieces."""


def read_weights(
    folder: Path,
    config: DecoderConfig,
    longest: int,
    *,
    adapter: Path | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    merge: bool = True,
) -> Weights:
    """The model's weights, with the adapter merged in or beside them, laid out for decoding.

    `longest` is the number of tokens of the longest prompt: beyond `LONG` the scores of its
    attention are not formed all at once, so that memory is linear in it.
    """
    # A merged kernel is formed in float32 and rounded once, to the dtype asked for.
    merging = adapter is not None and merge
    base = hf.read_params(folder, config, "float32" if merging else dtype)
    lora, learnt = None, {}
    if adapter is not None:
        lora, learnt = peft.read_adapter(adapter, config, "float32")
        if merge:
            base, lora, learnt = merge_adapter(base, learnt, lora.scale), None, {}
    return _laid_out(config, lora, {"adapter": learnt, "base": base}, longest, dtype)


def read_with_room(
    folder: Path,
    config: DecoderConfig,
    longest: int,
    room: LoraConfig,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Weights:
    """`read_weights` of the base with an adapter of that shape beside it, all zeros."""
    shapes = split(abstract(config, room)).adapter
    learnt = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    base = hf.read_params(folder, config, dtype)
    return _laid_out(config, room, {"adapter": learnt, "base": base}, longest, dtype)


def _laid_out(
    config: DecoderConfig,
    lora: LoraConfig | None,
    trees: dict[str, Tree],
    longest: int,
    dtype: Literal["float32", "bfloat16"],
) -> Weights:
    attention = "chunked" if longest > LONG else "xla"
    execution = Execution(dtype, remat="none", attention=attention)
    structure = split(abstract(config, lora, execution)).graphdef
    to = jnp.dtype(dtype)
    placed = map_with_path(
        lambda path, leaf: jnp.asarray(rounded(np.asarray(leaf), to, path)), trees
    )
    return weights_from(structure)(placed["adapter"], placed["base"])


def require_room(longest: int, max_new_tokens: int, config: DecoderConfig) -> None:
    """Refuses a prompt of so many tokens that its reply does not fit. Raises `InputError`."""
    if longest + max_new_tokens > config.max_length:
        raise InputError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the model's "
            f"{config.max_length} positions; shorten the prompt or lower --max-new-tokens"
        )
