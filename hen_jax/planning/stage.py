"""One jitted step, compiled for a topology, and everything that its program tells."""

import dataclasses
from typing import Any, NamedTuple

from hen_jax.core.types import Tree
from hen_jax.planning.collectives import Traffic, collectives, total_sent
from hen_jax.planning.costs import Flops, KernelFlops, flops, hbm_bytes
from hen_jax.planning.hlo import parse, uncounted
from hen_jax.planning.memory import MemoryPlan, compile_program
from hen_jax.planning.roofline import Roofline, Workload, mfu, roofline
from hen_jax.planning.topologies import Topology


class Program(NamedTuple):
    """A jitted step and the shapes and shardings it is called with."""

    step: Any  # what `jax.jit` returned
    arguments: tuple[Tree, ...]  # of jax.ShapeDtypeStruct with shardings on the topology
    model_flops: float  # that the step needs, all chips together, nothing recomputed
    tokens: int  # that a step reads, all chips together
    kernel_flops: KernelFlops


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a step that fits computes, moves and takes; flops, bytes and seconds per chip."""

    flops: Flops
    hbm_bytes: float
    collectives: tuple[Traffic, ...]
    roofline: Roofline
    recompute: float  # compiled over needed floating-point operations
    tokens_per_second: float  # with compute, memory and links overlapped
    mfu: float
    serial_mfu: float  # with nothing overlapped
    uncounted: tuple[str, ...]  # loops over data, counted once


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """What `hen plan` says of one stage; `costs` is None where it does not fit."""

    stage: str
    topology: str
    chips: int
    estimated: bool  # compiled for TPUs that stand in for GPUs
    memory: MemoryPlan
    compile_seconds: float
    model_flops: float
    tokens: int
    costs: Costs | None

    @property
    def fits(self) -> bool:
        """Whether the stage can run."""
        return self.memory.fits


def plan_program(stage: str, program: Program, topology: Topology) -> StagePlan:
    """Compiles the step for the topology, or for the TPUs that stand in, and reads its program."""
    done = compile_program(program.step.lower(*program.arguments), topology.chip.hbm)
    memory = done.memory._replace(limit=topology.chip.hbm) if topology.estimated else done.memory
    return StagePlan(
        stage=stage,
        topology=topology.name,
        chips=len(topology.devices),
        estimated=topology.estimated,
        memory=memory,
        compile_seconds=done.seconds,
        model_flops=program.model_flops,
        tokens=program.tokens,
        costs=_costs(done.text, program, topology) if done.text else None,
    )


def _costs(text: str, program: Program, topology: Topology) -> Costs:
    module, chips = parse(text), len(topology.devices)
    compiled = flops(module, program.kernel_flops)
    traffic = collectives(module, topology.linked)
    moved = hbm_bytes(module)
    total = compiled.products + compiled.kernels
    work = Workload(total, moved, total_sent(traffic, False), total_sent(traffic, True))
    least = roofline(work, topology)
    return Costs(
        flops=compiled,
        hbm_bytes=moved,
        collectives=traffic,
        roofline=least,
        recompute=total * chips / program.model_flops,
        tokens_per_second=program.tokens / chips / least.step,
        mfu=mfu(program.model_flops, least.step, topology),
        serial_mfu=mfu(program.model_flops, least.serial, topology),
        uncounted=uncounted(module),
    )
