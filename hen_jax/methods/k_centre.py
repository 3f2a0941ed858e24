"""k-centre: points chosen so that none is far from a chosen one; greedy and exact.

The greedy choice, always the point farthest from those chosen so far, is within twice the optimum
(Gonzalez, 1985). Synth-Empathy (Liang et al., 2024) selects its data so. Here distances to many
points that may be chosen next are computed in one product: the farthest points of a round are its
candidates, and the round goes on as long as the farthest point is one of them. The centres are
those of the plain loop, while all points are read once a round in place of once a centre.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

_CANDIDATES = 64
"""Points whose distances a round computes."""


class Centres(NamedTuple):
    """What was chosen, in the order of choice."""

    centres: Int[jax.Array, "K"]
    distance: Float[jax.Array, "N"]  # of each point to its nearest centre


class _Going(NamedTuple):
    """The state of the loops: `count` centres are chosen, `nearest` are squared distances."""

    centres: Int[jax.Array, "K"]
    count: Int[jax.Array, ""]
    nearest: Float[jax.Array, "N"]


@partial(jax.jit, static_argnames=("k", "candidates"))
def k_centre(
    points: Float[jax.Array, "N D"],
    k: int,
    first: Int[jax.Array, ""] | int = 0,
    candidates: int = _CANDIDATES,
) -> Centres:
    """`k` centres among the points by Euclidean distance, `first` being the first of them.

    Distances are float32, or float64 of points that are (under `jax.enable_x64`). Of points alike
    far the one that stands first is chosen. `k` is at most N; where every point is
    a centre already, the rest of the centres repeat the first point.
    """
    points = points if points.dtype == jnp.float64 else points.astype(jnp.float32)
    size = min(candidates, len(points))
    squares = jnp.einsum("nd,nd->n", points, points)
    start = jnp.zeros(k, jnp.int32).at[0].set(jnp.asarray(first, jnp.int32))
    nearest = _squared(points, squares, start[:1])[:, 0]
    begun = _Going(start, jnp.ones((), jnp.int32), nearest)

    def round_(going: _Going) -> _Going:
        offered = jax.lax.top_k(going.nearest, size)[1]
        columns = _squared(points, squares, offered).T
        place = jnp.full(len(points), -1, jnp.int32)
        place = place.at[offered].set(jnp.arange(size, dtype=jnp.int32))
        return _choose(going, columns, place, k)

    ended = jax.lax.while_loop(lambda going: going.count < k, round_, begun)
    return Centres(ended.centres, jnp.sqrt(jnp.maximum(ended.nearest, 0.0)))


def exact_k_centre(points: np.ndarray, k: int, first: int = 0) -> Centres:
    """`k_centre` in float64 on the host: the centres of the plain loop in float64, point for point.

    In float32 two points that are nearly alike far may change places: of 1,000 centres among
    100,000 points about one does, and what is chosen after it differs.
    """
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        return jax.device_get(k_centre(jnp.asarray(points, jnp.float64), k, first))


def _choose(
    going: _Going, columns: Float[jax.Array, "C N"], place: Int[jax.Array, "N"], k: int
) -> _Going:
    """Centres of a round, as long as the farthest point is a candidate; the first always is."""

    def more(state: tuple[_Going, jax.Array]) -> jax.Array:
        now, farthest = state
        return (now.count < k) & (place[farthest] >= 0)

    def one(state: tuple[_Going, jax.Array]) -> tuple[_Going, jax.Array]:
        now, farthest = state
        column = columns[place[farthest]]
        nearest = jnp.minimum(now.nearest, column)
        centres = now.centres.at[now.count].set(farthest)
        return _Going(centres, now.count + 1, nearest), _farthest(nearest)

    return jax.lax.while_loop(more, one, (going, _farthest(going.nearest)))[0]


def _farthest(nearest: Float[jax.Array, "N"]) -> Int[jax.Array, ""]:
    return jnp.argmax(nearest).astype(jnp.int32)


def _squared(
    points: Float[jax.Array, "N D"], squares: Float[jax.Array, "N"], chosen: Int[jax.Array, "C"]
) -> Float[jax.Array, "N C"]:
    """Squared distances of all points to the chosen ones."""
    exact = jax.lax.Precision.HIGHEST
    product = jnp.matmul(points, points[chosen].T, precision=exact)
    found = squares[:, None] - 2 * product + squares[chosen][None]
    own = jnp.arange(len(points))[:, None] == chosen[None]
    return jnp.where(own, 0.0, jnp.maximum(found, 0.0))


def covering_radius(points: np.ndarray, centres: np.ndarray) -> float:
    """The largest distance of a point to its nearest centre."""
    gaps = points[:, None].astype(float) - points[centres][None].astype(float)
    return float(np.sqrt((gaps**2).sum(axis=-1)).min(axis=1).max())
