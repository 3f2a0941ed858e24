"""The tensors of PEFT's file of an adapter."""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.trees import flatten
from hen_jax.core.types import Array, Tree
from hen_jax.io import names, shards
from hen_jax.io.peft_modules import PREFIX, A, B, linear_rows, modules_of
from hen_jax.io.peft_pairs import stacked
from hen_jax.models.config import DecoderConfig, LoraConfig

SCORE_KERNEL = "score/kernel"
"""Where the head of a reward model stands in the tree."""

_KINDS = ("lora_a", "lora_b")


def adapter_tensors(config: DecoderConfig, lora: LoraConfig, adapter: Tree) -> list[shards.Tensor]:
    """The tensors of PEFT's file of an adapter. Raises as `write_adapter`."""
    return list(_tensors(config, lora, _checked(config, lora, adapter)))


def _checked(config: DecoderConfig, lora: LoraConfig, adapter: Tree) -> dict[str, Array]:
    """The adapter's leaves by path, which must be those of `lora`."""
    rows = linear_rows(config)
    unknown = sorted(set(lora.targets) - set(rows))
    if unknown or not lora.targets:
        raise InputError(f"LoRA targets {unknown} match nothing; there are {', '.join(rows)}")
    given, shapes = flatten(adapter), names.tensor_shapes(config, lora)
    expected = {path for path in shapes if path.endswith(("/lora_a", "/lora_b"))}
    if config.score_head:
        expected.add(SCORE_KERNEL)
    where = f"its targets are {', '.join(lora.targets)}"
    names.require_names(set(given), expected, "the adapter tree", where)
    for path, leaf in given.items():
        names.require_shape(leaf.shape, shapes[path], path)
    return given


def _tensors(
    config: DecoderConfig, lora: LoraConfig, leaves: Mapping[str, Array]
) -> Iterator[shards.Tensor]:
    rows = linear_rows(config)
    for module in modules_of(config, lora.targets):
        layers = [rows[target].path.removesuffix("kernel") for target in module.targets]
        low, high = ([np.asarray(leaves[at + kind]) for at in layers] for kind in _KINDS)
        both = zip(module.names(config, A), module.names(config, B), strict=True)
        for layer, (name_a, name_b) in enumerate(both):
            a, b = stacked(
                [part[layer].T for part in low],
                [part[layer].T for part in high],
                module.spans,
                module.shape[0],
            )
            yield _kept(name_a, a)
            yield _kept(name_b, b)
    if SCORE_KERNEL in leaves:
        yield _kept(PREFIX + "score.weight", np.asarray(leaves[SCORE_KERNEL]).T)


def _kept(name: str, array: np.ndarray) -> shards.Tensor:
    return shards.Tensor(name, array.shape, array.dtype, partial(np.copyto, src=array))
