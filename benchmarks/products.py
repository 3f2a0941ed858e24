"""The matrix products of a program, and how long they take by themselves on this machine."""

import collections
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval


class Product(NamedTuple):
    """Shapes of both sides, and the `dimension_numbers` of `jax.lax.dot_general`."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    dimensions: tuple

    def flops(self) -> int:
        """Multiplications and additions."""
        (contracted, _), (batched, _) = self.dimensions
        twice = math.prod(self.left[i] for i in (*contracted, *batched))
        return 2 * math.prod(self.left) * math.prod(self.right) // twice


def products_of(step: Callable, *arguments: Any) -> collections.Counter[Product]:
    """How often a call of `step` makes which product; those that no output needs are left out."""
    jaxpr = jax.make_jaxpr(step)(*arguments).jaxpr
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    found: collections.Counter[Product] = collections.Counter()
    _count(needed, 1, found)
    return found


def seconds_alone(products: collections.Counter[Product], rounds: int = 10) -> float:
    """Seconds of all of them in float32, each kind at the best that it reaches with warm caches.

    A bound from below for a program that makes these products with the same back-end.
    """
    return sum(_best(product, rounds) * count for product, count in products.items())


def _best(product: Product, rounds: int) -> float:
    left, right = (jnp.ones(shape, jnp.float32) for shape in product[:2])
    run = jax.jit(lambda x, y: jax.lax.dot_general(x, y, product.dimensions))
    run(left, right).block_until_ready()
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        run(left, right).block_until_ready()
        best = min(best, time.perf_counter() - began)
    return best


def _count(jaxpr: Any, times: int, found: collections.Counter[Product]) -> None:
    for equation in jaxpr.eqns:
        name, inside = equation.primitive.name, collections.Counter[Product]()
        if name == "dot_general":
            left, right = (one.aval.shape for one in equation.invars)
            inside[Product(left, right, equation.params["dimension_numbers"])] += times
        for inner in _within(equation.params.values()):
            _count(inner, times * (equation.params["length"] if name == "scan" else 1), inside)
        if name in ("while", "cond") and inside:
            raise ValueError(f"how often a {name!r} makes its products is not in the program")
        found.update(inside)


def _within(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from _within(value)
        elif hasattr(value, "eqns"):
            yield getattr(value, "jaxpr", value)
