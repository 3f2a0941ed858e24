"""A stage's plan as text and as JSON."""

import dataclasses
from typing import Any

from hen_jax.planning.roofline import ASSUMPTIONS
from hen_jax.planning.stage import Costs, StagePlan
from hen_jax.planning.topologies import GIB, Topology


def plan_lines(plan: StagePlan, topology: Topology) -> list[str]:
    """What `hen plan` prints of one stage."""
    memory = plan.memory
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    means = "estimated with the TPU compiler" if plan.estimated else "by the TPU compiler"
    parts = ""
    if (
        memory.arguments is not None
        and memory.results is not None
        and memory.temporaries is not None
    ):
        parts = (
            f": arguments {memory.arguments / GIB:.2f}, results {memory.results / GIB:.2f}, "
            f"temporaries {memory.temporaries / GIB:.2f}"
        )
    found = [
        f"{plan.stage} on {plan.topology} ({plan.chips} chips): {verdict}, {means}",
        f"  memory       {memory.peak / GIB:.2f} of {memory.limit / GIB:.2f} GiB per chip{parts}",
        f"  compiled in  {plan.compile_seconds:.0f} s",
    ]
    return found + ([] if plan.costs is None else _cost_lines(plan, plan.costs, topology))


def _cost_lines(plan: StagePlan, costs: Costs, topology: Topology) -> list[str]:
    chip, least = topology.chip, costs.roofline
    compiled = costs.flops.products + costs.flops.kernels
    found = [
        f"  products     {plan.model_flops / plan.chips / 1e12:.1f} TFLOP per chip needed, "
        f"{compiled / 1e12:.1f} compiled, {costs.flops.kernels / 1e12:.1f} of them in kernels by "
        f"formula: recompute factor {costs.recompute:.3f}",
        f"  memory moved {costs.hbm_bytes / 1e9:.0f} GB per chip",
    ]
    if costs.flops.unknown:
        found.append(f"  not counted  kernels {', '.join(costs.flops.unknown)}")
    if costs.uncounted:
        found.append(f"  counted once loops over data: {', '.join(costs.uncounted)}")
    found += [
        f"  {one.kind:<12} {one.calls} per step, arrays of {one.payload / 1e9:.2f} GB, "
        f"{one.sent / 1e9:.2f} GB sent per chip" + (", between slices" * one.between_slices)
        for one in costs.collectives
    ]
    return [
        *found,
        f"  roofline     compute {least.compute:.3f} s, memory {least.memory:.3f} s, links "
        f"{least.links:.3f} s, between slices {least.network:.3f} s: bound by {least.bound}",
        f"  at best      {least.step:.3f} s per step, {costs.tokens_per_second:,.0f} tokens/s per "
        f"chip, MFU {costs.mfu:.2f}",
        f"  at worst     {least.serial:.3f} s per step with nothing overlapped, MFU "
        f"{costs.serial_mfu:.2f}",
        f"  chip         {chip.flops / 1e12:.0f} TFLOP/s bfloat16, {chip.hbm / GIB:.0f} GiB at "
        f"{chip.hbm_rate / 1e9:.0f} GB/s, {chip.link_rate / 1e9:.0f} GB/s per axis ({chip.source})",
    ]


def as_json(plan: StagePlan) -> dict[str, Any]:
    """The plan as plain values, with what was assumed."""
    costs = None
    if plan.costs is not None:
        costs = dataclasses.asdict(plan.costs) | {
            "flops": plan.costs.flops._asdict(),
            "collectives": [one._asdict() for one in plan.costs.collectives],
            "roofline": plan.costs.roofline._asdict()
            | {
                "step": plan.costs.roofline.step,
                "serial": plan.costs.roofline.serial,
                "bound": plan.costs.roofline.bound,
            },
        }
    return dataclasses.asdict(plan) | {
        "fits": plan.fits,
        "memory": plan.memory._asdict(),
        "costs": costs,
        "assumptions": ASSUMPTIONS,
    }
