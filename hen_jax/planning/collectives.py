"""What chips send each other in one step, by kind of collective, from the compiled program."""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.planning.hlo import Executed, Instruction, Module, executed

_KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
)

_IOTA = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
"""`[8,2]T(1,0)`: all devices, counted through a table of these sizes, its axes exchanged."""


class Traffic(NamedTuple):
    """All collectives of one kind over one network, per chip and step."""

    kind: str
    between_slices: bool
    calls: int
    payload: float  # bytes of the results: the whole array for an all-gather or an all-reduce
    sent: float  # bytes that a chip must send at least, by a ring over its group


def collectives(module: Module, chips_per_slice: int) -> tuple[Traffic, ...]:
    """The collectives of a program, largest first; loops counted as often as they run.

    A collective that the compiler spreads over several fusions, to hide it behind their work,
    stands in each of them under one channel: it is counted once.
    """
    found: dict[str, Traffic] = {}
    for run in executed(module):
        kind = _kind_of(run.instruction)
        if kind is not None:
            one = _traffic(kind, run, module.computations[run.computation], chips_per_slice)
            channel = re.search(r"channel_id=(\d+)", run.instruction.attributes)
            found.setdefault(channel[0] if channel else run.instruction.name, one)
    sums: dict[tuple[str, bool], Traffic] = {}
    for one in found.values():
        key = (one.kind, one.between_slices)
        before = sums.get(key, Traffic(*key, 0, 0.0, 0.0))
        sums[key] = before._replace(
            calls=before.calls + one.calls,
            payload=before.payload + one.payload,
            sent=before.sent + one.sent,
        )
    return tuple(sorted(sums.values(), key=lambda one: -one.sent))


def _traffic(
    kind: str, run: Executed, within: dict[str, Instruction], chips_per_slice: int
) -> Traffic:
    group = replica_group(run.instruction)
    payload = run.times * _payload(kind, run.instruction, within, len(group))
    crosses = len({device // chips_per_slice for device in group}) > 1
    return Traffic(kind, crosses, run.times, payload, payload * sent_share(kind, len(group)))


def _kind_of(instruction: Instruction) -> str | None:
    """The collective that an instruction is or starts; None where it is none."""
    opcode = instruction.opcode.removesuffix("-start")
    return opcode if opcode in _KINDS and not instruction.opcode.endswith("-done") else None


def replica_group(instruction: Instruction) -> tuple[int, ...]:
    """The devices of the first group; of a permutation, the first pair.

    `{{0,1},{2,3}}` gives `(0, 1)`; `[2,8]<=[8,2]T(1,0)`, two groups of eight taken from
    `arange(16).reshape(8, 2).T`, gives `(0, 2, 4, ..., 14)`.
    """
    listed = re.search(
        r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}", instruction.attributes
    )
    if listed:
        return tuple(int(n) for n in listed[1].split(","))
    named = re.search(
        rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({_IOTA}\))? \{{([^}}]*)\}}",
        instruction.attributes,
    )
    if named:
        return _named_group(*named.groups())
    iota = re.search(rf"replica_groups=\[([\d,]+)\]<={_IOTA}", instruction.attributes)
    if iota is None:
        raise InputError(f"hen plan cannot read the groups of {instruction.name}")
    groups, sizes, order = iota.groups()
    return tuple(_iota(sizes, order).reshape(_numbers(groups))[0].tolist())


def _iota(sizes: str, order: str | None) -> np.ndarray:
    devices = np.arange(math.prod(_numbers(sizes))).reshape(_numbers(sizes))
    return devices.transpose(_numbers(order)) if order else devices


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def _named_group(mesh: str, sizes: str | None, order: str | None, chosen: str) -> tuple[int, ...]:
    """The first group where a mesh `'a'=2,'b'=8` is taken apart along axes `'b'`.

    Its devices are those of `_iota(sizes, order)`, in turn, where that is given.
    """
    axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh)}
    devices = _iota(sizes or str(math.prod(axes.values())), order).reshape(list(axes.values()))
    along = re.findall(r"'(\w+)'", chosen)
    index = tuple(slice(None) if name in along else 0 for name in axes)
    return tuple(devices[index].ravel().tolist())


def sent_share(kind: str, group: int) -> float:
    """Bytes that each chip sends over a ring of `group` chips, per byte of the whole array.

    An all-reduce is a reduce-scatter and an all-gather, each of which sends all parts but one.
    """
    if kind == "collective-permute":
        return 1.0
    share = (group - 1) / group
    return 2 * share if kind == "all-reduce" else share


def _payload(
    kind: str, instruction: Instruction, within: dict[str, Instruction], group: int
) -> float:
    """Bytes of the whole array: of an all-gather's result, of a reduce-scatter's operand."""
    operands = sum(_bytes(within[name]) for name in instruction.operands if name in within)
    if kind == "collective-permute":
        return _bytes(within[instruction.operands[0]])
    return operands * group if kind == "all-gather" else operands


def _bytes(instruction: Instruction) -> float:
    return sum(shape.bytes for shape in instruction.shapes)


def total_sent(traffic: Iterable[Traffic], between_slices: bool) -> float:
    """Bytes that a chip sends within its slice, or to other slices."""
    return sum(one.sent for one in traffic if one.between_slices is between_slices)
