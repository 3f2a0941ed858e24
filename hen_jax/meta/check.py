"""Any derivative against central finite differences, in float64, one leaf at a time."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from hen_jax.core.types import Array, Tree
from hen_jax.meta.gradients import GradientMode, OuterLoss, meta_gradient
from hen_jax.meta.inner import InnerLoop


class Agreement(NamedTuple):
    """What `check_gradient` found; directional derivatives by path of the leaf."""

    error: float  # the largest relative error
    worst: str  # the path of the leaf that has it
    analytic: dict[str, np.ndarray]  # path -> [directions]
    numeric: dict[str, np.ndarray]  # path -> [directions]


def check_gradient(
    value: Callable[..., Array],
    gradient: Callable[..., Tree],
    point: tuple,
    *,
    directions: int = 2,
    step: float = 1e-5,
    seed: int = 0,
) -> Agreement:
    """Compares `gradient(*point)` with finite differences of `value(*point)`.

    For each float leaf of `point`, the derivative along random unit directions is measured with
    the five-point central stencil (error of order step^4). The relative error of a leaf is taken
    to its own derivative, or to a thousandth of the largest one where its own is next to zero.
    Everything runs in float64 inside this call only; a loss that casts to float32 limits what can
    be seen to about 1e-4.

    Args:
      value: a scalar function, called about 8 times per leaf: pass it through `jax.jit`.
      gradient: returns a tree with the structure of `point`.
      point: the arguments of both; all leaves float.
      directions: random directions per leaf.
      step: of the differences, in units of the leaf's entries.
      seed: of the directions.
    """
    with jax.enable_x64(True):
        generator = np.random.default_rng(seed)
        point = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), point)
        slopes = jax.tree.leaves(gradient(*point))
        leaves, treedef = jax.tree.flatten(point)
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(point)]
        flat_value = lambda *leaves: value(*jax.tree.unflatten(treedef, leaves))  # noqa: E731
        analytic, numeric = {}, {}
        for i, path in enumerate(paths):
            units = [_unit(generator, leaves[i].shape) for _ in range(directions)]
            moved = functools.partial(_moved, flat_value, leaves, i)
            analytic[path] = np.array([np.vdot(slopes[i], unit) for unit in units])
            numeric[path] = np.array([_five_point(moved, unit, step) for unit in units])
    return _agreement(analytic, numeric)


def check_meta_gradient(
    inner: InnerLoop,
    outer_loss: OuterLoss,
    theta: Tree,
    eta: Tree,
    batches: Tree,
    query: Tree,
    mode: GradientMode = "mixflow",
    *,
    directions: int = 2,
    step: float = 1e-5,
) -> Agreement:
    """`check_gradient` for a meta-gradient: paths `[0]...` are `theta`, `[1]...` are `eta`.

    Only the exact modes agree with finite differences (`implicit` where the inner loop has
    converged). `batches` and `query` are taken as they are, floats in float64.
    """
    with jax.enable_x64(True):
        batches, query = jax.tree.map(_widened, (batches, query))

    @jax.jit
    def value(theta: Tree, eta: Tree) -> Array:
        trained = inner(theta, eta, batches, rule="first_order")
        return outer_loss(trained.theta, eta, query)

    @jax.jit
    def gradient(theta: Tree, eta: Tree) -> tuple[Tree, Tree]:
        found = meta_gradient(inner, outer_loss, mode)(theta, eta, batches, query)
        return found.theta, found.eta

    return check_gradient(value, gradient, (theta, eta), directions=directions, step=step)


def _agreement(analytic: dict[str, np.ndarray], numeric: dict[str, np.ndarray]) -> Agreement:
    size = {path: np.abs(found).max() for path, found in numeric.items()}
    floor = 1e-3 * max(size.values())
    errors = {
        path: np.abs(analytic[path] - numeric[path]).max() / max(size[path], floor)
        for path in numeric
    }
    # NaN compares false with everything: it must come out as the worst, not vanish in a max.
    worst = max(errors, key=lambda path: np.nan_to_num(errors[path], nan=np.inf))
    return Agreement(float(errors[worst]), worst, analytic, numeric)


def _moved(value: Callable, leaves: list, i: int, shift: Array) -> float:
    return float(value(*leaves[:i], leaves[i] + shift, *leaves[i + 1 :]))


def _five_point(moved: Callable[[np.ndarray], float], unit: Array, step: float) -> float:
    near = moved(step * unit) - moved(-step * unit)
    far = moved(2 * step * unit) - moved(-2 * step * unit)
    return (8 * near - far) / (12 * step)


def _unit(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    direction = generator.standard_normal(shape)
    return direction / np.linalg.norm(direction)


def _widened(leaf: Array) -> Array:
    leaf = np.asarray(leaf)
    return leaf.astype(np.float64) if np.issubdtype(leaf.dtype, np.floating) else leaf
