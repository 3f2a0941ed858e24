"""Trees of arrays: paths as `a/b/c`, partition by pattern, sizes."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax

from hen_jax.core.errors import InputError
from hen_jax.core.types import Tree


def flatten(tree: Tree) -> dict[str, Any]:
    """Leaves by path: `{"a": {"b": x}}` gives `{"a/b": x}`, in the order of the tree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def unflatten(leaves: dict[str, Any]) -> Tree:
    """The inverse of `flatten` for nested dicts."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def map_with_path(function: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """`function(path, leaf)` at every leaf."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(jax.tree_util.keystr(path, simple=True, separator="/"), leaf),
        tree,
    )


def partition(tree: Tree, patterns: Iterable[str]) -> tuple[Tree, Tree]:
    """Splits a nested dict into the leaves whose path some pattern matches, and the others.

    Patterns are regular expressions searched in the path: `partition(p, ["mlp/.*kernel"])`.

    Raises:
      InputError: a pattern matches no leaf; names it and lists what there is to match.
    """
    patterns = list(patterns)
    leaves = flatten(tree)
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in leaves):
            raise InputError(f"pattern {pattern!r} matches no parameter; there are {list(leaves)}")
    chosen = {p for p in leaves if any(re.search(pattern, p) for pattern in patterns)}
    inside = {path: leaf for path, leaf in leaves.items() if path in chosen}
    outside = {path: leaf for path, leaf in leaves.items() if path not in chosen}
    return unflatten(inside), unflatten(outside)


def combine(first: Tree, second: Tree) -> Tree:
    """The nested dict with the leaves of both; the inverse of `partition`."""
    return unflatten({**flatten(first), **flatten(second)})


def count(tree: Tree) -> int:
    """How many numbers the tree holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
