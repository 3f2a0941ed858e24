"""What a compiled program keeps in each chip's memory, and whether that fits."""

import re
import time
from typing import Any, NamedTuple

import jax

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

_SIZE = r"([\d.]+)([KMGT]?)"
_REFUSALS = (
    f"Used {_SIZE} of {_SIZE} hbm",
    rf"required for HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)",
)
"""How the TPU compiler says that a program needs more than there is."""


class MemoryPlan(NamedTuple):
    """Bytes of one chip's main memory; of a program that does not fit only `peak` is known."""

    peak: int  # arguments, results that reuse none of them, and temporaries at their highest
    limit: int  # what the compiler leaves the program of the chip's memory
    arguments: int | None = None
    results: int | None = None  # results that do not reuse an argument's memory
    temporaries: int | None = None

    @property
    def fits(self) -> bool:
        """Whether the program can run."""
        return self.peak <= self.limit


class Compilation(NamedTuple):
    """A program compiled for chips that need not be here; `text` is empty if it does not fit."""

    memory: MemoryPlan
    seconds: float
    text: str


def compile_program(lowered: Any, limit: int) -> Compilation:
    """Compiles `jax.jit(f).lower(...)`; a program too large for the memory is a result, no error.

    `limit` is the memory of a chip, in bytes. Any other failure of the compiler is raised.
    """
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        memory = out_of_memory(str(error))
        if memory is None:
            raise
        return Compilation(memory, time.perf_counter() - start, "")
    seconds = time.perf_counter() - start
    found = compiled.memory_analysis()
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    memory = MemoryPlan(
        peak=found.argument_size_in_bytes + results + found.temp_size_in_bytes,
        limit=limit,
        arguments=found.argument_size_in_bytes,
        results=results,
        temporaries=found.temp_size_in_bytes,
    )
    return Compilation(memory, seconds, compiled.as_text())


def out_of_memory(message: str) -> MemoryPlan | None:
    """The need and the limit in the TPU compiler's message; None if it speaks of something else.

    Example: "... Used 32.60G of 15.75G hbm. ..." needs 32.6 GiB of 15.75 GiB.
    """
    found = next((hit for form in _REFUSALS if (hit := re.search(form, message))), None)
    if found is None:
        return None
    need, need_unit, limit, limit_unit = found.groups()
    return MemoryPlan(
        peak=round(float(need) * _UNITS[need_unit]), limit=round(float(limit) * _UNITS[limit_unit])
    )
