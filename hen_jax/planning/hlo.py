"""The text of a compiled program as instructions, and how often each of them runs."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from hen_jax.core.errors import InputError

_BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16, "s4": 4, "u4": 4, "s2": 2, "u2": 2}
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z\d]*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{$")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Shape(NamedTuple):
    """An array of a program: element type, sizes, and whether it lies in the main memory."""

    dtype: str
    dims: tuple[int, ...]
    in_hbm: bool

    @property
    def bytes(self) -> int:
        """How much memory its elements take, padding left out."""
        return math.ceil(math.prod(self.dims) * bits(self.dtype) / 8)


class Instruction(NamedTuple):
    """One line of a computation; a tuple's value is several shapes."""

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str  # everything after the operands, as printed
    literal: str  # what stands between the parentheses, as printed
    root: bool  # the value of its computation


class Module(NamedTuple):
    """A program: its computations, each a dict of instructions in the order of the text."""

    computations: dict[str, dict[str, Instruction]]
    entry: str


class Executed(NamedTuple):
    """An instruction that runs, the computation it stands in, and how often it runs per step."""

    instruction: Instruction
    computation: str
    times: int
    fused: bool  # inside a fusion: its operands and results never reach the main memory


def bits(dtype: str) -> int:
    """The width of an element type as XLA names it: `bits("f8e4m3fn") == 8`."""
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.search(r"\d+", dtype)
    if digits is None:
        raise InputError(f"element type {dtype!r} of the compiled program is not known to hen plan")
    return int(digits[0])


def parse(text: str) -> Module:
    """Reads the text of an optimised XLA program (`compiled.as_text()`)."""
    computations: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] = {}
    entry = ""
    for line in _whole_lines(text):
        opened = _COMPUTATION.match(line)
        if opened and " = " not in line.split("(", 1)[0]:
            current = computations.setdefault(opened[2], {})
            entry = opened[2] if opened[1] else entry
            continue
        found = _INSTRUCTION.match(line)
        if found:
            instruction = _instruction(found[2], found[3], root=found[1] is not None)
            current[instruction.name] = instruction
    if entry not in computations:
        raise InputError(
            "the compiled program's text has no ENTRY computation; hen plan reads XLA's"
        )
    return Module(computations, entry)


def _whole_lines(text: str) -> Iterator[str]:
    """The lines of the text; a kernel's metadata breaks its instruction over several."""
    whole = ""
    for line in text.splitlines():
        starts = _INSTRUCTION.match(line) or _COMPUTATION.match(line) or line.startswith("}")
        if starts and not line.startswith("}}"):
            yield whole
            whole = line
        else:
            whole += line
    yield whole


def executed(module: Module) -> Iterator[Executed]:
    """Every instruction that runs in a step, with its count; loops multiply what they hold.

    Branches of a conditional are all counted, so that the sum is an upper bound; a loop whose
    turns depend on data is counted once (`uncounted` names them).
    """
    yield from _executed(module, module.entry, 1, fused=False)


def trip_count(module: Module, loop: Instruction, within: dict[str, Instruction]) -> int | None:
    """How often a while loop's body runs, from what the compiler wrote or from its counter.

    TPU programs carry no count. There the condition is `counter < limit`; the counter's start is in
    the tuple that enters the loop, which stands `within` the same computation, and its stride in
    the body's result. None where the loop depends on data.
    """
    known = _TRIPS.search(loop.attributes)
    if known:
        return int(known[1])
    condition = module.computations[called(loop, "condition")[0]]
    body = module.computations[called(loop, "body")[0]]
    test, result = root_of(condition), root_of(body)
    if "direction=LT" not in test.attributes or result.opcode != "tuple":
        return None
    index = re.search(r"index=(\d+)", condition[test.operands[0]].attributes)
    if index is None:
        return None
    step = body[result.operands[int(index[1])]]
    limit = _constant(condition, test.operands[1])
    start = _constant(within, within[loop.operands[0]].operands[int(index[1])])
    stride = _constant(body, step.operands[1]) if step.opcode == "add" else None
    if limit is None or start is None or stride is None:
        return None
    return math.ceil((limit - start) / stride)


def uncounted(module: Module) -> tuple[str, ...]:
    """The loops whose turns depend on data: `executed` takes each of them to run once."""
    return tuple(
        instruction.name
        for computation in module.computations.values()
        for instruction in computation.values()
        if instruction.opcode == "while" and trip_count(module, instruction, computation) is None
    )


def root_of(computation: dict[str, Instruction]) -> Instruction:
    """The instruction whose value is the computation's."""
    return next(instruction for instruction in computation.values() if instruction.root)


def _constant(computation: dict[str, Instruction], name: str) -> int | None:
    """The integer that `name` is, looked at through copies."""
    instruction = computation[name]
    while instruction.opcode == "copy":
        instruction = computation[instruction.operands[0]]
    return int(instruction.literal) if instruction.opcode == "constant" else None


def called(instruction: Instruction, attribute: str) -> tuple[str, ...]:
    """The computations named by an attribute such as `body` or `calls`."""
    found = re.search(rf"\b{attribute}=(\{{[^}}]*\}}|%?[\w.\-]+)", instruction.attributes)
    return tuple(re.findall(r"[\w.\-]+", found[1])) if found else ()


def _executed(module: Module, name: str, times: int, fused: bool) -> Iterator[Executed]:
    for instruction in module.computations[name].values():
        yield Executed(instruction, name, times, fused)
        match instruction.opcode:
            case "while":
                known = trip_count(module, instruction, module.computations[name])
                turns = times if known is None else times * known
                inner = [(body, turns, fused) for body in called(instruction, "body")]
            case "fusion":
                inner = [(body, times, True) for body in called(instruction, "calls")]
            case "call" | "async-start":
                names = called(instruction, "calls") + called(instruction, "to_apply")
                inner = [(body, times, fused) for body in names]
            case "conditional":
                names = called(instruction, "branch_computations") + (
                    called(instruction, "true_computation")
                    + called(instruction, "false_computation")
                )
                inner = [(body, times, fused) for body in names]
            case _:
                inner = []
        for body, turns, within in inner:
            yield from _executed(module, body, turns, within)


def _instruction(name: str, text: str, root: bool) -> Instruction:
    shape, rest = _split_shape(text)
    opcode, _, rest = rest.partition("(")
    literal, attributes = _balanced(rest)
    operands = tuple(re.findall(r"%([\w.\-]+)", literal))
    return Instruction(name, shapes_in(shape), opcode.strip(), operands, attributes, literal, root)


def shapes_in(text: str) -> tuple[Shape, ...]:
    """The arrays of a printed shape, tuples flattened; `S(n)` in a layout is on-chip memory."""
    return tuple(
        Shape(dtype, tuple(int(n) for n in dims.split(",") if n), "S(" not in (layout or ""))
        for dtype, dims, layout in _ARRAY.findall(text)
    )


def _split_shape(text: str) -> tuple[str, str]:
    """`f32[2]{0} add(...)` -> the shape and the rest; a tuple's shape has spaces in it."""
    if text.startswith("("):
        inside, rest = _balanced(text[1:])
        return inside, rest.lstrip()
    shape, _, rest = text.partition(" ")
    return shape, rest


def _balanced(text: str) -> tuple[str, str]:
    """What stands before the parenthesis that closes `text`, and what stands after it."""
    depth = 1
    for index, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return text[:index], text[index + 1 :]
    return text, ""
