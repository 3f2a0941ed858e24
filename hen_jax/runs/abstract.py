"""The program that a run of a stage compiles, for shapes and shardings alone.

No weights, no data, no hub.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hen_jax.adapters.experts import joint_lora
from hen_jax.core.errors import InputError
from hen_jax.core.mesh import Layout, make_mesh, replicated
from hen_jax.core.trees import map_with_path
from hen_jax.core.types import Array, Batch, Tree
from hen_jax.io import hf
from hen_jax.io.packages import cache_folder
from hen_jax.models.config import DecoderConfig, LoraConfig
from hen_jax.models.decoder import abstract, split
from hen_jax.models.families.table import from_hf
from hen_jax.models.quantised import SCALE
from hen_jax.planning.architectures import ARCHITECTURES
from hen_jax.planning.stage import Program
from hen_jax.planning.topologies import Topology
from hen_jax.runs import tiny_model
from hen_jax.runs.earlier import beside
from hen_jax.runs.model import SCORE, base_dtype, language_model
from hen_jax.runs.stage import RunSettings, Stage, beginning
from hen_jax.training.counted import batches_in, counting
from hen_jax.training.guards import reporting
from hen_jax.training.placement import abstract_state, parameter_shardings, placed

UPDATES = 1000
"""Updates that the learning-rate schedule is laid out for: a constant of the program, no more."""


class Placed(NamedTuple):
    """A model without weights, divided as a run divides it, on a mesh."""

    config: DecoderConfig
    graphdef: nnx.GraphDef
    mesh: Mesh
    trainable: Tree  # of jax.ShapeDtypeStruct with shardings
    frozen: Tree


def program(stage: Stage, settings: Any, topology: Topology) -> Program:
    """The step that a run of the stage jits, and what it is called with.

    Raises:
      InputError: what the run would refuse.
    """
    # Imported here: with Pallas it takes a fourteenth of a second, and only a plan asks for it.
    from hen_jax.models.fused_attention import kernel_flops

    adapters = None if stage.adapters is None else stage.adapters(settings)
    model = placed_model(settings, topology, partial(stage.model_config, settings), adapters)
    stage.check(settings, model.mesh)
    stage.check_model(settings, model.config)
    load = stage.load(settings, model.config, model.mesh)
    work = stage.work(settings, model.config, model.graphdef, load.bounds, UPDATES)
    params, frozen = beginning(
        stage, settings, model.trainable, model.frozen, _extra(stage, model, settings)
    )
    state = abstract_state(params, work.optimizer, settings.seed, model.mesh, work.memory)
    return Program(
        step=placed(counting(reporting(work.step)), state),
        arguments=(state, frozen, load.batch),
        model_flops=stage.flops(settings, model.config, -1),
        tokens=sum(one.tokens.size for one in batches_in(load.batch)),
        kernel_flops=partial(kernel_flops, model.config.windows),
    )


def placed_model(
    settings: RunSettings,
    topology: Topology,
    model_config: Callable[[DecoderConfig], DecoderConfig] = language_model,
    adapters: Mapping[str, LoraConfig] | None = None,
) -> Placed:
    """The model of a config: adapters in float32, the base in `base_dtype`, as stored bfloat16.

    `adapters` train side by side in place of the config's one; with none at all nothing of the
    model trains.
    """
    config = model_config(read_architecture(settings.model.source))
    mesh = make_mesh(settings.mesh, topology.devices)
    layout = Layout(mesh, settings.mesh.rules)
    lora = joint_lora(adapters) if adapters else settings.adapter
    model = abstract(config, lora, settings.execution, layout)
    shardings = parameter_shardings(model, mesh, settings.mesh.rules)

    def place(tree: Tree, dtype: str) -> Tree:
        def one(path: str, leaf: Array) -> jax.ShapeDtypeStruct:
            # Eight-bit kernels, their scales and a score head have dtypes of their own.
            own = leaf.dtype == jnp.int8 or path.endswith(f"/{SCALE}") or path == f"{SCORE}/kernel"
            stored = leaf.dtype if own else dtype
            return jax.ShapeDtypeStruct(leaf.shape, stored, sharding=shardings[path])

        return map_with_path(one, tree)

    parts = split(model)
    dtype = base_dtype(settings.model, settings.adapter) or "bfloat16"
    base, adapter = place(parts.base, dtype), parts.adapter
    if adapters is not None:
        own = {name: split(abstract(config, one)).adapter for name, one in adapters.items()}
        several = {name: place(tree, "float32") for name, tree in own.items()}
        return Placed(config, parts.graphdef, mesh, several, base)
    if settings.adapter is None:
        return Placed(config, parts.graphdef, mesh, base, {})
    return Placed(config, parts.graphdef, mesh, *beside(place(adapter, "float32"), base))


def read_architecture(source: str) -> DecoderConfig:
    """The decoder that `config.model.source` names: a folder, an imported model or a known id.

    Raises:
      InputError: none of these.
    """
    folders = (Path(source), cache_folder() / "models" / source.replace("/", "--"))
    for folder in folders:
        if (folder / "config.json").exists():
            return hf.read_config(folder)
    if source == "tiny":
        return tiny_model.CONFIG
    if source not in ARCHITECTURES:
        raise InputError(
            f"config.model.source {source!r} is no model folder, was not imported, and is none of "
            f"{', '.join(ARCHITECTURES)}; `hen import` it, or give a folder with its config.json"
        )
    return from_hf(ARCHITECTURES[source])


def abstract_batch(
    leading: tuple[int, ...], length: int, mesh: Mesh, axes: tuple[Any, ...]
) -> Batch:
    """The shapes of a batch of `[*leading, length]` tokens, spread over mesh axes."""
    where = NamedSharding(mesh, PartitionSpec(*axes))

    def leaf(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*leading, *shape), dtype, sharding=where)

    ids, mask = leaf(jnp.int32, length), leaf(jnp.float32, length)
    return Batch(ids, ids, mask, ids, ids, task=leaf(jnp.int32))


def _extra(stage: Stage, model: Placed, settings: Any) -> dict[str, Tree]:
    here = replicated(model.mesh)
    key = jax.random.key(settings.seed)
    shapes = jax.eval_shape(lambda: stage.extra(settings, model.config, key))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes
    )
