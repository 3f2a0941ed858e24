"""What a compiled program computes and moves per chip and step, loops multiplied out."""

import math
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from hen_jax.planning.hlo import Executed, Instruction, Module, called, executed, root_of

KernelFlops = Callable[[str, tuple[int, ...]], float]
"""Floating-point operations of one call of a hand-written kernel, by the name it was given and the
sizes of its first floating-point operand; 0 for a kernel it does not know."""

_FREE = frozenset(
    {
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota", "opt-barrier"),
        *("while", "conditional", "call", "async-start", "async-update", "after-all"),
        *("partition-id", "replica-id"),
    }
)
"""Instructions that move nothing themselves: what they wrap is counted where it stands."""

_FREE_CALLS = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound")
"""Custom calls of the TPU compiler that only name memory."""

_SLICES = ("dynamic-slice", "slice", "gather")


class Flops(NamedTuple):
    """Floating-point operations of the matrix products of one chip in one step."""

    products: float  # that XLA compiled, counted from its program
    kernels: float  # inside hand-written kernels, counted from their formula
    unknown: tuple[str, ...]  # kernels without a formula: not counted


def flops(module: Module, kernel_flops: KernelFlops) -> Flops:
    """Counts `dot` and `convolution` (as which TPUs run products), and the kernels' formulas.

    A kernel's name is that of its instruction, such as `splash_mha_fwd_segmented_residuals.1`.
    """
    products, kernels, unknown = 0.0, 0.0, set()
    for run in executed(module):
        instruction = run.instruction
        within = module.computations[run.computation]
        if instruction.opcode == "dot":
            products += run.times * _dot_flops(instruction, within)
        elif instruction.opcode == "convolution":
            products += run.times * _convolution_flops(instruction, within)
        elif "tpu_custom_call" in instruction.attributes:
            one = kernel_flops(instruction.name, _first_operand(instruction, within))
            kernels += run.times * one
            if one == 0:
                unknown.add(instruction.name)
    return Flops(products, kernels, tuple(sorted(unknown)))


def hbm_bytes(module: Module) -> float:
    """Bytes read from and written to the main memory, were every operand read once.

    A fusion reads of a sliced operand only the slice, and writes of an updated one only the update.
    Arrays that the compiler keeps in on-chip memory count nothing.
    """
    return sum(
        run.times * _traffic(module, run)
        for run in executed(module)
        if not (run.fused or _is_free(run.instruction))
    )


def _first_operand(kernel: Instruction, within: dict[str, Instruction]) -> tuple[int, ...]:
    operands = [within[name].shapes[0] for name in kernel.operands]
    return next((one.dims for one in operands if one.dtype.startswith(("f", "bf"))), ())


def _dot_flops(dot: Instruction, within: dict[str, Instruction]) -> float:
    left = within[dot.operands[0]].shapes[0].dims
    contracted = _numbers(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes)
    return 2.0 * math.prod(dot.shapes[0].dims) * math.prod(left[axis] for axis in contracted)


def _convolution_flops(convolution: Instruction, within: dict[str, Instruction]) -> float:
    """Two per multiplication that meets an element and not padding."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", convolution.attributes)
    assert labels, f"{convolution.name} has no dimension labels"
    left, kernel, out = labels.groups()
    left_dims, kernel_dims = (within[name].shapes[0].dims for name in convolution.operands[:2])
    out_dims = convolution.shapes[0].dims
    met = math.prod(
        _meetings(
            out_dims[out.index(axis)],
            left_dims[left.index(axis)],
            kernel_dims[kernel.index(axis)],
            _window(convolution.attributes, int(axis)),
        )
        for axis in out
        if axis.isdigit()
    )
    # The kernel's input features are those of one group already.
    features = kernel_dims[kernel.index("i")] * out_dims[out.index("f")]
    return 2.0 * out_dims[out.index("b")] * features * met


class _Window(NamedTuple):
    stride: int
    low: int  # padding before the first element
    left_dilation: int
    kernel_dilation: int


def _window(attributes: str, axis: int) -> _Window:
    found = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(part.split("=") for part in found[1].split()) if found else {}

    def at(name: str, default: str) -> str:
        return fields[name].split("x")[axis] if name in fields else default

    return _Window(
        stride=int(at("stride", "1")),
        low=int(at("pad", "0_0").split("_")[0]),
        left_dilation=int(at("lhs_dilate", "1")),
        kernel_dilation=int(at("rhs_dilate", "1")),
    )


def _meetings(out: int, left: int, kernel: int, window: _Window) -> int:
    """How many (output, kernel) positions of one axis fall on an element of the left operand."""
    place = (
        np.arange(out)[:, None] * window.stride
        - window.low
        + np.arange(kernel)[None, :] * window.kernel_dilation
    )
    inside = (place >= 0) & (place <= (left - 1) * window.left_dilation)
    return int((inside & (place % window.left_dilation == 0)).sum())


def _traffic(module: Module, run: Executed) -> float:
    instruction, within = run.instruction, module.computations[run.computation]
    if instruction.opcode == "fusion":
        return _fusion_traffic(module, instruction, within)
    if instruction.opcode == "slice-start":  # (source, slice, flag)
        piece = instruction.shapes[1]
        return piece.bytes * (1 + piece.in_hbm)
    results = _hbm(instruction)
    if instruction.opcode.endswith("-start"):  # the tuple holds the operand too
        return results
    if instruction.opcode in _SLICES:
        return 2 * results
    operands = [_hbm(within[name]) for name in instruction.operands if name in within]
    if instruction.opcode == "dynamic-update-slice":
        return 2 * operands[1]
    return results + sum(operands)


def _is_free(instruction: Instruction) -> bool:
    if instruction.opcode == "custom-call":
        return any(f'"{target}"' in instruction.attributes for target in _FREE_CALLS)
    return instruction.opcode in _FREE or instruction.opcode.endswith("-done")


def _fusion_traffic(module: Module, fusion: Instruction, within: dict[str, Instruction]) -> float:
    body = module.computations[called(fusion, "calls")[0]]
    parameters = _parameters(body)
    read = sum(
        _read(module, body, parameters[index], _hbm(within[name]))
        for index, name in enumerate(fusion.operands)
    )
    root = root_of(body)
    roots = [body[name] for name in root.operands] if root.opcode == "tuple" else [root]
    return read + sum(_written(body, one) for one in roots)


def _parameters(body: dict[str, Instruction]) -> dict[int, str]:
    return {int(i.literal): i.name for i in body.values() if i.opcode == "parameter"}


def _read(module: Module, body: dict[str, Instruction], name: str, whole: float) -> float:
    """Bytes that a fusion reads of the operand `name`, by itself or in the fusions within it."""
    total = 0.0
    for user in _users(body, name):
        if user.opcode in _SLICES and user.operands[0] == name:
            total += sum(shape.bytes for shape in user.shapes)
        elif user.opcode == "fusion" and name in user.operands:
            inner = module.computations[called(user, "calls")[0]]
            parameters = _parameters(inner)
            places = [place for place, one in enumerate(user.operands) if one == name]
            total += sum(_read(module, inner, parameters[place], whole) for place in places)
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != name:
            return whole
    return min(total, whole)


def _written(body: dict[str, Instruction], root: Instruction) -> float:
    while root.opcode in ("bitcast", "copy", "convert") and root.operands:
        root = body[root.operands[0]]
    if root.opcode == "dynamic-update-slice":
        return sum(shape.bytes for shape in body[root.operands[1]].shapes)
    return _hbm(root)


def _users(body: dict[str, Instruction], name: str) -> Iterable[Instruction]:
    """The instructions that read `name`, looked at through bitcasts."""
    for instruction in body.values():
        if name in instruction.operands:
            if instruction.opcode == "bitcast":
                yield from _users(body, instruction.name)
            else:
                yield instruction


def _hbm(instruction: Instruction) -> float:
    return sum(shape.bytes for shape in instruction.shapes if shape.in_hbm)


def _numbers(pattern: str, text: str) -> list[int]:
    found = re.search(pattern, text)
    return [int(n) for n in found[1].split(",") if n] if found else []
