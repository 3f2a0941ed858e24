"""Where every array of a run lives: parameters by their logical axes, the rest by theirs."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PRNGKeyArray

from hen_jax.core.mesh import Rules, Shardings, batch_sharding, parameter_sharding, replicated
from hen_jax.core.trees import map_with_path
from hen_jax.core.types import Array, Tree
from hen_jax.models.decoder import Decoder, split
from hen_jax.models.parameters import parameter_table
from hen_jax.steps.state import Optimizer, State, init_state

_Step = TypeVar("_Step", bound=Callable[..., tuple[State, Any]])

InitMemory = Callable[[PRNGKeyArray], Tree]
"""`memory(key)`: what a stage carries besides parameters and moments, before the first update."""


def parameter_shardings(model: Decoder, mesh: Mesh, rules: Rules = ()) -> Shardings:
    """The sharding of every parameter of a (possibly abstract) decoder; `rules` as in the mesh."""
    return {
        path: parameter_sharding(parameter.axes, parameter.shape, mesh, rules)
        for path, parameter in parameter_table(model).items()
    }


def initial_adapter(build: Callable[[jax.Array], Decoder], shardings: Shardings, seed: int) -> Tree:
    """The adapter of `build(key)`, each leaf made where it lives; the base is never built."""

    def adapter(key: jax.Array) -> Tree:
        return split(build(key)).adapter

    key = jax.random.key(seed)
    where = map_with_path(lambda path, _: shardings[path], jax.eval_shape(adapter, key))
    return jax.jit(adapter, out_shardings=where)(key)


def no_memory(key: PRNGKeyArray) -> Tree:
    """The memory of a stage that carries nothing from update to update."""
    return ()


def initial_state(
    params: Tree,
    optimizer: Optimizer,
    seed: int,
    mesh: Mesh,
    memory: InitMemory = no_memory,
) -> State:
    """`init_state` with the optimizer's moments on the shardings of their parameters.

    `params` are donated: the state holds them, and the arrays given are gone. A model that trains
    as a whole is so held once and not twice.
    """
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(params, optimizer, seed, mesh))
    begin = jax.jit(lambda p: init_state(p, optimizer, seed), donate_argnums=0, out_shardings=where)
    state = begin(params)
    return state._replace(memory=jax.device_put(memory(jax.random.key(seed)), replicated(mesh)))


def abstract_state(
    params: Tree,
    optimizer: Optimizer,
    seed: int,
    mesh: Mesh,
    memory: InitMemory = no_memory,
) -> State:
    """Shapes, dtypes and shardings of `initial_state`; `params` may be as abstract."""
    here = replicated(mesh)
    shapes = jax.eval_shape(lambda p: init_state(p, optimizer, seed), params)
    like_params = jax.tree.map(lambda leaf: leaf.sharding, params)
    moments = _moments(optimizer, shapes.opt_state, like_params, here)
    where = shapes._replace(params=like_params, opt_state=moments, step=here, key=here)  # pyright: ignore
    state = jax.tree.map(_at, shapes, where)
    remembered = jax.eval_shape(memory, shapes.key)
    return state._replace(memory=jax.tree.map(lambda leaf: _at(leaf, here), remembered))


def _moments(optimizer: Optimizer, state: Tree, params: Tree, here: NamedSharding) -> Tree:
    """The shardings of an optimizer's state: those of the parameters, or `here`."""
    if isinstance(optimizer, Mapping):
        return {
            name: _moments(one, state[name], params[name], here) for name, one in optimizer.items()
        }
    return optax.tree_map_params(
        optimizer, lambda _, where: where, state, params, transform_non_params=lambda _: here
    )


def _at(leaf: Array, where: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)


def placed(step: _Step, state: State) -> _Step:
    """`step` jitted: the state is donated, and the new one lies where `state` does.

    Left to the compiler it might lie elsewhere, and the second call would compile anew.
    """
    where = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(step, donate_argnums=0, out_shardings=(where, None))  # pyright: ignore


def to_devices(mesh: Mesh) -> Callable[[Tree], Tree]:
    """Spreads rows over the mesh: a batch, or a tree of them, of this process's numpy arrays."""
    where = batch_sharding(mesh)

    def put(leaf: np.ndarray) -> Array:
        return jax.make_array_from_process_local_data(where, leaf)

    return lambda batch: jax.tree.map(put, batch)
