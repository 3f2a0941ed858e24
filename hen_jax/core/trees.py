"""Trees of arrays: paths as `a/b/c`, sizes."""

import math
from collections.abc import Callable
from typing import Any

import jax

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


def combine(first: Tree, second: Tree) -> Tree:
    """The nested dict with the leaves of both."""
    return unflatten({**flatten(first), **flatten(second)})


def count(tree: Tree) -> int:
    """How many numbers the tree holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
