"""The parameter table: each leaf's shape and logical axes, folded from the layers' declarations."""

from typing import NamedTuple

import jax
from flax import nnx

from hen_jax.models.decoder import Decoder


class Parameter(NamedTuple):
    """One row of the table; `axes` has one logical name per dimension of `shape`."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]


def parameter_table(model: Decoder) -> dict[str, Parameter]:
    """Path -> shape and axes of every parameter; `model` may be abstract.

    Leaves of the stacked blocks get the leading axis `layers`:
    `table["blocks/attn/q/kernel"] == Parameter((L, D, N * H), ("layers", "embed", "heads"))`.
    """
    variables = nnx.to_flat_state(nnx.state(model))
    table = {}
    for path, variable in variables:
        axes = variable.get_metadata()["axes"]
        stacked = ("layers",) if path[0] == "blocks" else ()
        shape = jax.tree.leaves(variable)[0].shape
        table["/".join(map(str, path))] = Parameter(shape, stacked + axes)
    return table
