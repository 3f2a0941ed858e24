"""`hen plan`: every stage of a config compiled for chips that are not here, and what it would cost.

What is compiled is the step that a run jits, for shapes and shardings alone: no weights, no data,
no hub.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.mesh import MeshConfig
from hen_jax.core.outputs import output_files, require_ours
from hen_jax.planning.report import as_json, plan_lines
from hen_jax.planning.roofline import ASSUMPTIONS
from hen_jax.planning.search import first_that_fits, meshes
from hen_jax.planning.stage import Program, StagePlan, plan_program
from hen_jax.planning.topologies import Topology, open_topology
from hen_jax.recipes.changes import changes_of, replaced
from hen_jax.recipes.table import stage_of
from hen_jax.runs.abstract import program, read_architecture
from hen_jax.runs.abstract_decoding import DECODING, CacheRoom, decoding_program
from hen_jax.runs.settings import settings as read_settings
from hen_jax.runs.stage import RunSettings
from hen_jax.verbs.run.launch import load_config


def plan(
    config_file: str,
    overrides: list[str],
    topology_name: str,
    stage: str | None = None,
    out: Path | None = None,
    search: bool = False,
    room: CacheRoom = CacheRoom(),
) -> list[StagePlan]:
    """Compiles the stages of a config for a topology, prints what each costs, writes JSON.

    Where a stage does not fit, the smallest change that makes it fit is looked for by compiling;
    with `search` every mesh and microbatch that may be better is compiled instead. `room` is what
    the stage "decode" is to hold.

    Raises:
      InputError: no such config, topology, stage or architecture, a mesh the slice has not, or
        `out` is a file of somebody else.
    """
    if out is not None:
        require_ours(out)  # before minutes of compiling
    config = load_config(config_file, overrides)
    settings = read_settings(stage_of(config.get("recipe")).settings, config)
    stages = _stages_of(settings, stage)
    trained = stage_of(settings.recipe)
    wanted = trained.model_config(settings, read_architecture(settings.model.source))
    trained.check_model(settings, wanted)
    topology = open_topology(topology_name)
    plans, written = [], []
    for name in stages:
        found = (
            _search(name, settings, topology, room)
            if search
            else [_plan(name, settings, topology, room)]
        )
        plans += found
        written += map(as_json, found)
        if not search and not found[0].fits:
            written[-1]["fits_with"] = _advice(name, settings, topology, room)
    print(ASSUMPTIONS)
    if out is not None:
        with output_files(out) as (staged,):
            write_json(staged, written)
    return plans


def _stages_of(settings: RunSettings, chosen: str | None) -> tuple[str, ...]:
    """The stage of a config, which has its recipe's name, with its rollouts; or the chosen one."""
    name = settings.recipe
    known = (name, *DECODING)
    if chosen not in (None, *known):
        raise InputError(f"--stage={chosen}: the recipe {name!r} has {', '.join(known)}")
    if chosen is not None:
        return (chosen,)
    return (name,) if stage_of(name).slots is None else (name, "rollout")


def _program(name: str, settings: Any, topology: Topology, room: CacheRoom) -> Program:
    stage = stage_of(settings.recipe)
    for kind in DECODING:
        if name == kind:
            return decoding_program(kind, stage, settings, topology, room)
    return program(stage, settings, topology)


def _plan(name: str, settings: Any, topology: Topology, room: CacheRoom) -> StagePlan:
    found = _compiled(name, settings, topology, room)
    print("\n".join(plan_lines(found, topology)), flush=True)
    return found


def _say_compiling(name: str, settings: Any, topology: Topology) -> None:
    """Says what is about to take long; on the error stream, since it is no part of the plan."""
    tiny = settings.model.source == "tiny"
    print(
        f"compiling {name} for {len(topology.devices)} chips ({topology.name}); expect "
        f"{'less than a minute' if tiny else '2 to 15 minutes'} on a few CPU cores",
        file=sys.stderr,
        flush=True,
    )


def _compiled(name: str, settings: Any, topology: Topology, room: CacheRoom) -> StagePlan:
    """The plan of a stage; for GPUs also lowered for CUDA, which shows that it can be.

    cuDNN's attention is in a library that need not be here. It is lowered as the chunked one, and
    its memory is estimated as that of splash, which keeps the same: outputs and softmax sums.
    """
    _say_compiling(name, settings, topology)
    kernel = {"cudnn": "cuda", "splash": "tpu"}.get(settings.execution.attention)
    if kernel not in (None, topology.chip.platform):
        other = {"cuda": "cudnn", "tpu": "splash"}[topology.chip.platform]
        raise InputError(
            f"config.execution.attention is {settings.execution.attention!r}, which does not run "
            f"on {topology.name}; give --config.execution.attention={other}"
        )
    if topology.estimated:
        plain = replaced(settings, "execution", attention="chunked") if kernel else settings
        made = _program(name, plain, topology, room)
        made.step.trace(*made.arguments).lower(lowering_platforms=("cuda",))
        settings = replaced(settings, "execution", attention="splash") if kernel else settings
    return plan_program(name, _program(name, settings, topology, room), topology)


def _advice(name: str, settings: Any, topology: Topology, room: CacheRoom) -> dict[str, Any] | None:
    """The smallest change that makes a stage fit, printed and as JSON; None if none does."""

    def attempt(changed: Any) -> StagePlan | None:
        try:
            found = _compiled(name, changed, topology, room)
        except InputError:  # rows that no longer divide over the devices, say
            return None
        return found if found.fits else None

    changes = changes_of(stage_of(settings.recipe))
    found = first_that_fits(settings, changes, attempt)
    if found is None:
        print(f"  no change makes it fit; tried {', '.join(one.name for one in changes)}")
        return None
    print(
        "\n".join(
            [f"  it fits with {', '.join(found.changes)}:", *plan_lines(found.result, topology)]
        )
    )
    return {"changes": list(found.changes), "plan": as_json(found.result)}


def _search(name: str, settings: Any, topology: Topology, room: CacheRoom) -> list[StagePlan]:
    """Plans every mesh and microbatch; the one with the most tokens per second comes first."""
    rows_of = None if name in DECODING else stage_of(name).rows
    if rows_of is None:
        raise InputError(f"--search divides the rows of a batch; {name} has no such rows")
    heads = read_architecture(settings.model.source).kv_heads
    rows, found = rows_of(settings), []
    for data, fsdp, tensor in meshes(len(topology.devices), heads):
        for microbatches in (1, 2, 4):
            if data % topology.slices or rows % (microbatches * data * fsdp):
                continue
            mesh = MeshConfig(data, fsdp, tensor, topology.slices, settings.mesh.rules)
            tried = dataclasses.replace(settings, mesh=mesh, microbatches=microbatches)
            print(f"data={data} fsdp={fsdp} tensor={tensor} microbatches={microbatches}")
            found.append((_plan(name, tried, topology, room), mesh, microbatches))
            if found[-1][0].fits:
                break  # more microbatches only gather the parameters more often
    if not found:
        raise InputError(
            f"--search: {rows} rows of a batch divide over no mesh of {len(topology.devices)} "
            "chips; give a larger batch or a smaller --topology"
        )
    found.sort(key=lambda one: -one[0].costs.tokens_per_second if one[0].costs else 1.0)
    best, mesh, microbatches = found[0]
    if best.fits:
        print(f"best: {mesh}, microbatches={microbatches}")
    else:
        print("none of these fits")
    return [one for one, _, _ in found]
