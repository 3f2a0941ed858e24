"""Low-rank adapters (Hu et al., 2021): checking targets, merging into the base."""

import jax
import jax.numpy as jnp
import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.rounding import rounded
from hen_jax.core.trees import flatten, unflatten
from hen_jax.core.types import Tree
from hen_jax.models.config import LoraConfig


def check_targets(lora: LoraConfig, adapter: Tree) -> None:
    """Raises `InputError` if a target of `lora` names no linear layer of the model.

    `adapter` is the model's adapter tree (`decoder.split(...).adapter`).
    """
    layers = {path.split("/")[-2] for path in flatten(adapter)}
    missing = [target for target in lora.targets if target not in layers]
    if missing:
        raise InputError(
            f"adapter targets {missing} match no layer; there are q, k, v, o, gate, up, down"
        )


def merge_adapter(base: Tree, adapter: Tree, scale: float) -> Tree:
    """The base with `W + scale A B` in place of each adapted `W`, as numpy arrays.

    Other leaves that were trained with the adapter, a score head, take the place of the base's. The
    sum is formed in float32 from the stored values and rounded once, to the dtype of `W`.

    Raises:
      InputError: a sum that the dtype of `W` cannot hold.
    """
    leaves, low = flatten(base), flatten(adapter)
    merged = dict(leaves)
    for path, leaf in low.items():
        layer, _, kind = path.rpartition("/")
        if kind == "lora_a":
            kernel = leaves[f"{layer}/kernel"]
            a, b = (np.asarray(x, np.float32) for x in (leaf, low[f"{layer}/lora_b"]))
            summed = np.asarray(kernel, np.float32) + np.float32(scale) * (a @ b)
            name = f"{layer}/kernel with its adapter"
            merged[f"{layer}/kernel"] = rounded(summed, kernel.dtype, name)
        elif kind != "lora_b":
            merged[path] = rounded(np.asarray(leaf), leaves[path].dtype, path)
    return unflatten(merged)


def merge_rounding(base: Tree, adapter: Tree, scale: float) -> float:
    """The largest absolute difference that storing the merged kernels in their dtype makes."""
    exact = merge_adapter(jax.tree.map(lambda x: np.asarray(x, np.float32), base), adapter, scale)
    stored = merge_adapter(base, adapter, scale)
    errors = jax.tree.map(
        lambda e, s: float(np.max(np.abs(e - np.asarray(s, np.float32)), initial=0.0)),
        exact,
        stored,
    )
    return max(jax.tree.leaves(errors))


def zero_adapter(adapter: Tree) -> Tree:
    """The adapter with every `lora_b` zero: the identity."""
    leaves = flatten(adapter)
    return unflatten(
        {p: jnp.zeros_like(x) if p.endswith("/lora_b") else x for p, x in leaves.items()}
    )
