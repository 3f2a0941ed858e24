"""Which examples of a set begin alike, and rows that hold such a prefix once.

A set may hold records of several kinds, each with a system prompt of its own: what all of them have
in common is nothing. So the examples are put into groups by how they begin, and a group is packed
by itself where that saves rows.
"""

import dataclasses
from array import array
from collections.abc import Iterable

import numpy as np

from hen_jax.data.examples import Example, shift
from hen_jax.data.packing import RowPlan, pack_all

SHORTEST_PREFIX = 16
"""Positions by which prefixes are told apart: more than the header of any chat format, and so few
that two prompts of one template, which differ further on, still share their beginning."""

REMEMBERED = 1024
"""Prefixes to compare with, those met last: memory stays flat where every example has another. One
that is forgotten and met again begins a second group, which costs a row and loses nothing."""


@dataclasses.dataclass(frozen=True, eq=False)
class PrefixGroups:
    """The examples of a set in groups that begin alike."""

    group: np.ndarray  # [n] int32, of each example; 0 is the group without a prefix
    prefix: np.ndarray  # [groups] int32, positions that a group's examples begin with


def find_prefixes(examples: Iterable[Example]) -> PrefixGroups:
    """Groups examples by their first `SHORTEST_PREFIX` positions, in one pass.

    The prefix of a group is the longest that all its examples begin with, before any of them trains
    and leaving each one a position of its own. An example for which that is less than
    `SHORTEST_PREFIX` has no prefix.
    """
    groups, prefixes = array("i"), array("i", [0])
    known: dict[bytes, tuple[int, np.ndarray]] = {}  # those met last stand last
    for example in examples:
        tokens, _, mask = shift(example)
        most = min(len(tokens) - 1, int(mask.argmax()) if mask.any() else len(tokens))
        if most < SHORTEST_PREFIX:
            groups.append(0)
            continue
        start = tokens[:SHORTEST_PREFIX].tobytes()
        group, prefix = known.pop(start, (len(prefixes), tokens[:most]))
        most = min(most, len(prefix))
        same = prefix[:most] == tokens[:most]
        prefix = prefix[: most if same.all() else int(same.argmin())]
        prefixes[group : group + 1] = array("i", [len(prefix)])  # also one beyond the last
        groups.append(group)
        known[start] = group, prefix
        if len(known) > REMEMBERED:
            del known[next(iter(known))]
    return PrefixGroups(np.array(groups, np.int32), np.array(prefixes, np.int32))


def pack_by_prefix(lengths: np.ndarray, row_length: int, groups: PrefixGroups) -> RowPlan:
    """Rows of examples that begin alike, with their prefix once; never more rows than without.

    Which is best depends on the lengths: short examples save most among themselves, but may also
    fill the rows that long ones of another kind leave open. So three ways are tried: no prefix,
    each group by itself, and by themselves only those that fill no other group's row.

    Raises:
      InputError: an item is longer than a row.
    """
    plain = pack_all(lengths, row_length)
    found = groups.group[plain.items]
    starts = np.concatenate([[0], plain.ends[:-1]])
    alone = np.minimum.reduceat(found, starts) == np.maximum.reduceat(found, starts)
    left = np.zeros(len(lengths), np.int32)
    left[plain.items] = np.where(np.repeat(alone, np.diff(plain.ends, prepend=0)), found, 0)
    apart = (_apart(lengths, row_length, g, groups.prefix) for g in (groups.group, left))
    return min(plain, *apart, key=len)


def _apart(lengths: np.ndarray, row_length: int, group: np.ndarray, prefix: np.ndarray) -> RowPlan:
    """Each group packed by itself, if that saves the positions of one row: its last may be empty.

    All others are packed together, without a prefix.
    """
    members = np.bincount(group, minlength=len(prefix))
    own = np.bincount(group, lengths, len(prefix)) - members * prefix
    full_rows = own / (row_length - prefix)
    pays = (members - full_rows) * prefix >= row_length
    group = np.where(pays, np.arange(len(prefix)), 0)[group]
    order = np.argsort(group, kind="stable").astype(np.int32)
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    packed = [
        pack_all(lengths[part], row_length, "shared_prefix", int(prefix[group[part[0]]]))
        for part in parts
    ]
    sizes = [np.diff(rows.ends, prepend=0) for rows in packed]
    return RowPlan(
        np.concatenate([part[rows.items] for part, rows in zip(parts, packed, strict=True)]),
        np.cumsum(np.concatenate(sizes)),
        np.concatenate([rows.prefix for rows in packed]),
    )
