"""k-centre: points chosen so that none is far from a chosen one; greedy and exact.

The greedy choice, always the point farthest from those chosen so far, is within twice the optimum
(Gonzalez, 1985). Synth-Empathy (Liang et al., 2024) selects its data so. The plain loop reads all
points once a centre. Here all points are read once for up to 64 centres, in float32, which tells
within its rounding how far each is: a few hundred of the farthest are on offer, and among these
centres are chosen in float64, as long as the farthest of them is farther than any point that is not
on offer can be. The centres are those of the plain loop in float64.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from hen_jax.core.errors import InputError

_OFFERED = 512
"""Points among which a round chooses; more where float32 cannot tell those from the others."""

_BLOCK = 64
"""Centres whose distances to all points are computed in one product."""


class _Points(NamedTuple):
    """Points in float64, or some of them."""

    places: np.ndarray  # [C] among all
    vectors: np.ndarray  # [C, D]
    squares: np.ndarray  # [C]

    def of(self, places: Sequence[int] | np.ndarray) -> "_Points":
        """Those at these places of these."""
        at = np.asarray(places)
        return _Points(self.places[at], self.vectors[at], self.squares[at])


class _Offer(NamedTuple):
    """The farthest points of a round, in the order of the points."""

    points: _Points
    nearest: np.ndarray  # [C] float64: squared distances to the nearest centre
    others: float  # no point that is not on offer is farther


def k_centre(points: np.ndarray, k: int, first: int = 0) -> np.ndarray:
    """`[k]` int: centres among the points `[N, D]` by Euclidean distance, in the order of choice.

    Of points alike far the one that stands first is chosen. `k` is at most N; where every point is
    a centre already, the rest of the centres repeat the first point.

    Raises:
      InputError: a point with a number that is not finite.
    """
    vectors = _scaled(np.asarray(points, np.float64))
    every = _Points(np.arange(len(vectors)), vectors, np.einsum("nd,nd->n", vectors, vectors))
    held = jnp.asarray(vectors, jnp.float32), jnp.asarray(every.squares, jnp.float32)
    error = _rounding(vectors.shape[1], float(every.squares.max()))
    chosen, size = [first], _OFFERED
    nearest = _nearer(*held, jnp.full(len(vectors), jnp.inf), jnp.asarray([first]))
    while len(chosen) < k:
        offer = _offer(every, np.asarray(nearest), chosen, size, error)
        found = _chosen(offer, k - len(chosen))
        if not found:
            size *= 2
            continue
        size = _OFFERED
        chosen += found
        for start in range(0, len(found), _BLOCK):
            nearest = _nearer(*held, nearest, _padded(found[start : start + _BLOCK]))
    return np.asarray(chosen)


def _scaled(vectors: np.ndarray) -> np.ndarray:
    """The points over a power of two, so that their squares are numbers of float32 too.

    Raises:
      InputError: as `k_centre`.
    """
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise InputError(
            f"point {int(np.argmin(finite))} of {len(vectors)} holds a number that is not finite; "
            "its distances are not known"
        )
    return np.ldexp(vectors, -np.frexp(np.abs(vectors).max())[1])


def _rounding(width: int, largest: float) -> float:
    """By how much a squared distance in float32 may be off, of points with squares up to `largest`:
    a product of `width` terms in any order, and a few roundings more."""
    return (2 * width + 24) * float(np.finfo(np.float32).eps) * largest


@jax.jit
def _nearer(
    points: Float[jax.Array, "N D"],
    squares: Float[jax.Array, "N"],
    nearest: Float[jax.Array, "N"],
    chosen: Int[jax.Array, "C"],
) -> Float[jax.Array, "N"]:
    """The squared distances to the nearest centre, with these centres besides."""
    exact = jax.lax.Precision.HIGHEST
    product = jnp.matmul(points, points[chosen].T, precision=exact)
    found = squares[:, None] - 2 * product + squares[chosen][None]
    return jnp.minimum(nearest, found.min(axis=1))


def _padded(chosen: list[int]) -> np.ndarray:
    """As many as a power of two, so that there are few programs; the last is repeated."""
    return np.pad(chosen, (0, (1 << (len(chosen) - 1).bit_length()) - len(chosen)), mode="edge")


def _offer(
    every: _Points, nearest: np.ndarray, chosen: list[int], size: int, error: float
) -> _Offer:
    """The `size` points that are farthest by `nearest`, with their distances in float64."""
    if size < len(nearest):
        order = np.argpartition(nearest, len(nearest) - size)
        own, others = every.of(np.sort(order[-size:])), float(nearest[order[:-size]].max()) + error
    else:
        own, others = every, -np.inf
    away = np.full(len(own.places), np.inf)
    for start in range(0, len(chosen), _BLOCK):
        part = every.of(chosen[start : start + _BLOCK])
        away = np.minimum(away, _squared(own, part).min(axis=1))
    return _Offer(own, away, others)


def _chosen(offer: _Offer, most: int) -> list[int]:
    """Centres of a round, as long as no point that is not on offer can be the farthest."""
    found, nearest = [], offer.nearest
    while len(found) < most:
        at = int(nearest.argmax())
        if nearest[at] <= offer.others:
            break
        found.append(int(offer.points.places[at]))
        nearest = np.minimum(nearest, _squared(offer.points, offer.points.of([at]))[:, 0])
    return found


def _squared(points: _Points, others: _Points) -> np.ndarray:
    """`[C, C']` squared distances in float64; 0 of a point to itself."""
    found = points.squares[:, None] - 2 * (points.vectors @ others.vectors.T) + others.squares[None]
    return np.where(points.places[:, None] == others.places[None], 0.0, np.maximum(found, 0.0))


def covering_radius(points: np.ndarray, centres: np.ndarray) -> float:
    """The largest distance of a point to its nearest centre."""
    chosen, nearest = np.asarray(points[np.asarray(centres)], float), 0.0
    for start in range(0, len(points), 1024):
        own = np.asarray(points[start : start + 1024], float)
        away = (own**2).sum(1)[:, None] + (chosen**2).sum(1)[None] - 2 * (own @ chosen.T)
        nearest = max(nearest, float(away.min(axis=1).max()))
    return nearest**0.5
