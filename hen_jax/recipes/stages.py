"""What each stage of a recipe compiles: the step that its run jits, for shapes and shardings alone.

No weights, no data, no hub. A later stage finds its place by a function here and an entry in
`STAGES` and `OF_RECIPE`.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import BATCH, Layout, make_mesh
from hen_jax.core.trees import map_with_path
from hen_jax.core.types import Array, Batch, Tree
from hen_jax.data.episodes import Episode
from hen_jax.data.pipeline import RowBounds
from hen_jax.io import hf
from hen_jax.io.packages import cache_folder
from hen_jax.models.config import DecoderConfig
from hen_jax.models.decoder import abstract, split
from hen_jax.models.families.table import from_hf
from hen_jax.models.fused_attention import kernel_flops
from hen_jax.models.quantised import SCALE
from hen_jax.planning.architectures import ARCHITECTURES
from hen_jax.planning.stage import Program
from hen_jax.planning.topologies import Topology
from hen_jax.recipes import emcl
from hen_jax.recipes.emcl import EmclSettings
from hen_jax.recipes.sft import SftSettings, training, update_flops
from hen_jax.runs import tiny_model
from hen_jax.training.placement import abstract_state, parameter_shardings, placed

UPDATES = 1000
"""Updates that the learning-rate schedule is laid out for: a constant of the program, no more."""

Stage = Callable[[Any, Topology], Program]
"""`stage(settings, topology) -> Program`."""


class Placed(NamedTuple):
    """A model without weights, divided as a run divides it, on a mesh."""

    config: DecoderConfig
    graphdef: nnx.GraphDef
    mesh: Mesh
    trainable: Tree  # of jax.ShapeDtypeStruct with shardings
    frozen: Tree


def placed_model(settings: SftSettings | EmclSettings, topology: Topology) -> Placed:
    """The model of a config: adapters in float32, the base in the dtype that the config names."""
    config = architecture(settings.model.source)
    mesh = make_mesh(settings.mesh, topology.devices)
    layout = Layout(mesh, settings.mesh.rules)
    model = abstract(config, settings.adapter, settings.execution, layout)
    shardings = parameter_shardings(model, mesh, settings.mesh.rules)

    def place(tree: Tree, dtype: str) -> Tree:
        def one(path: str, leaf: Array) -> jax.ShapeDtypeStruct:
            # Eight-bit kernels and their scales have dtypes of their own.
            own = leaf.dtype == jnp.int8 or path.endswith(f"/{SCALE}")
            stored = leaf.dtype if own else dtype
            return jax.ShapeDtypeStruct(leaf.shape, stored, sharding=shardings[path])

        return map_with_path(one, tree)

    parts = split(model)
    base, adapter = place(parts.base, settings.model.dtype or "bfloat16"), parts.adapter
    if settings.adapter is None:
        return Placed(config, parts.graphdef, mesh, base, {})
    return Placed(config, parts.graphdef, mesh, place(adapter, "float32"), base)


def sft_program(settings: SftSettings, topology: Topology) -> Program:
    """One update of supervised fine-tuning; every position of a row is taken to train."""
    model = placed_model(settings, topology)
    rows, length = settings.data.batch_size, settings.data.row_length
    run = training(settings, model.graphdef, UPDATES, RowBounds(length))
    state = abstract_state(model.trainable, run.optimizer, settings.seed, model.mesh)
    return Program(
        step=placed(run.step, state),
        arguments=(state, model.frozen, abstract_batch((rows,), length, model.mesh, (BATCH,))),
        model_flops=update_flops(settings, model.config),
        tokens=rows * length,
        kernel_flops=partial(kernel_flops, model.config.windows),
    )


def emcl_program(settings: EmclSettings, topology: Topology) -> Program:
    """One step of meta-curriculum learning with all tasks in play."""
    model, tasks, drawn = placed_model(settings, topology), len(settings.tasks), settings.episode
    length = drawn.row_length
    run = emcl.training(settings, model.graphdef, length)
    memory = emcl.remembered(settings, model.config.width)
    state = abstract_state(model.trainable, run.optimizer, settings.seed, model.mesh, memory)
    axis = drawn.task_axis
    rows = tuple(name for name in BATCH if name != axis)
    support = (tasks, settings.emcl.inner_steps, drawn.support_rows)
    query = (tasks, drawn.query_rows)
    episode = Episode(
        abstract_batch(support, length, model.mesh, (axis, None, rows)),
        abstract_batch(query, length, model.mesh, (axis, rows)),
    )
    return Program(
        step=placed(run.step, state),
        arguments=(state, model.frozen, episode),
        model_flops=emcl.step_flops(settings, model.config, -1),
        tokens=(math.prod(support) + math.prod(query)) * length,
        kernel_flops=partial(kernel_flops, model.config.windows),
    )


STAGES: dict[str, Stage] = {"sft": sft_program, "emcl": emcl_program}
"""Name of a stage -> the program that a run of it compiles."""

OF_RECIPE: dict[str, tuple[str, ...]] = {
    "sft": ("sft",),
    "quickstart": ("sft",),
    "emcl": ("emcl",),
}
"""Recipe -> its stages."""


def stages_of(recipe: str, chosen: str | None) -> tuple[str, ...]:
    """The stages of a recipe, or the chosen one of them.

    Raises:
      InputError: the recipe has no stage of that name, or none that can be planned.
    """
    stages = OF_RECIPE.get(recipe, ())
    if not stages:
        raise InputError(f"config.recipe {recipe!r} has no stage to plan; {list(OF_RECIPE)} have")
    if chosen is None:
        return stages
    if chosen not in stages:
        raise InputError(f"--stage={chosen}: the recipe {recipe!r} has {', '.join(stages)}")
    return (chosen,)


def architecture(source: str) -> DecoderConfig:
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
