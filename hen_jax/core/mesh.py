"""The device mesh, and logical axes -> mesh axes -> shardings."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hen_jax.core.errors import InputError

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")
"""The mesh axes that rows of a batch are spread over."""

RULES: tuple[tuple[str, str | None], ...] = (
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("mlp", "tensor"),
    ("embed", "fsdp"),
    ("layers", None),
    ("rank", None),
)
"""Logical axis -> mesh axis; the first match wins, an axis without a rule is an error."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices along each axis; -1 (at most one of them) takes what is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh `data x fsdp x tensor` over the given (or all) devices.

    Raises:
      InputError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices):
        raise InputError(
            f"config.mesh asks for data={config.data} x fsdp={config.fsdp} x tensor="
            f"{config.tensor} but there are {len(devices)} devices; the product must equal that"
        )
    return jax.make_mesh(
        tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices
    )


def parameter_sharding(
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    mesh: Mesh,
    rules: tuple[tuple[str, str | None], ...] = RULES,
) -> NamedSharding:
    """Where a parameter with logical `axes` lives.

    A dimension that its mesh axis does not divide stays whole, and no mesh axis is used twice.

    Raises:
      InputError: a logical axis has no rule.
    """
    table: dict[str, str | None] = {}
    for name, target in rules:
        table.setdefault(name, target)
    placed: list[str | None] = []
    for name, size in zip(axes, shape, strict=True):
        if name not in table:
            raise InputError(f"no sharding rule for logical axis {name!r}; rules: {dict(rules)}")
        target = table[name]
        usable = target is not None and target not in placed and size % mesh.shape[target] == 0
        placed.append(target if usable else None)
    return NamedSharding(mesh, PartitionSpec(*placed))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch spread over the `data` and `fsdp` axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())
