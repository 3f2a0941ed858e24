"""What a plan reads from a compiled program, and what it makes of it."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.core.mesh import Layout, MeshConfig, all_gather_fsdp, make_mesh, parameter_sharding
from hen_jax.core.trees import count, flatten
from hen_jax.models.decoder import abstract, split
from hen_jax.models.families.table import FAMILIES, from_hf
from hen_jax.planning.architectures import ARCHITECTURES
from hen_jax.planning.collectives import collectives, replica_group, sent_share
from hen_jax.planning.costs import flops, hbm_bytes
from hen_jax.planning.hlo import executed, parse, uncounted
from hen_jax.planning.memory import MemoryPlan, compile_program, out_of_memory
from hen_jax.planning.model_flops import RowShape, training_flops, visible_pairs
from hen_jax.planning.roofline import Workload, mfu, roofline
from hen_jax.planning.search import Change, candidates, meshes
from hen_jax.planning.topologies import GIB, Topology, open_topology
from hen_jax.recipes.emcl import STAGE
from hen_jax.recipes.emcl_settings import EmclSettings
from hen_jax.recipes.experts import STAGE as EXPERTS
from hen_jax.runs.abstract import program
from hen_jax.runs.abstract_decoding import CacheRoom, decoding_program
from hen_jax.runs.settings import settings
from hen_jax.verbs.plan import plan
from hen_jax.verbs.run.launch import load_config

PROGRAM = Path(__file__).with_name("step.hlo").read_text()
"""Made by hand: a loop that slices a stack, multiplies, gathers and calls a kernel; then a sum."""

TURNS = 3  # counter 1, 3, 5


def test_loops_multiply_what_they_hold():
    times = {run.instruction.name: run.times for run in executed(parse(PROGRAM))}
    assert times["y.1"] == times["y"] == TURNS
    assert times["sum"] == 1


def test_products_are_counted_as_often_as_they_run_and_kernels_by_their_formula():
    found = flops(parse(PROGRAM), lambda name, queries: 100.0 if queries == (8, 16) else 0.0)
    assert found.products == TURNS * 2 * 8 * 16 * 32
    assert found.kernels == TURNS * 100.0
    assert flops(parse(PROGRAM), lambda name, queries: 0.0).unknown == ("kernel.2",)


def test_a_fused_slice_of_a_stack_reads_only_the_slice():
    x, layer, y, whole, attended = 8 * 16 * 2, 16 * 32 * 2, 8 * 32 * 4, 32 * 32 * 4, 2 * 8 * 16 * 2
    counter = 4
    fusion, gathers, kernel = x + layer + counter + y, 2 * (y + whole), x + attended
    each = fusion + gathers + kernel + 3 * counter  # the addition reads two and writes one
    assert hbm_bytes(parse(PROGRAM)) == TURNS * each + 2 * counter  # the copy of the start


def test_collectives_are_summed_over_turns_and_channels_counted_once():
    gather, reduce = collectives(parse(PROGRAM), chips_per_slice=2)
    assert (gather.kind, gather.calls, gather.payload) == ("all-gather", TURNS, TURNS * 32 * 32 * 4)
    assert gather.sent == gather.payload * 3 / 4
    assert gather.between_slices
    assert reduce.between_slices
    assert (reduce.kind, reduce.payload, reduce.sent) == ("all-reduce", 8, 8.0)
    assert not collectives(parse(PROGRAM), chips_per_slice=4)[0].between_slices


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("replica_groups={{0,1},{2,3}}", (0, 1)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", (0, 4)),
        ("replica_groups=mesh['a'=1,'b'=2,'c'=4], device_ids=([4,2]T(1,0)) {'b'}", (0, 1)),
        ("replica_groups=mesh['a'=1,'b'=2,'c'=4], device_ids=([4,2]T(1,0)) {'c'}", (0, 2, 4, 6)),
        ("source_target_pairs={{0,1},{1,0}}", (0, 1)),
    ],
)
def test_every_way_to_write_groups_is_read(groups, expected):
    module = parse(f"ENTRY %main {{\n  ROOT %y = f32[8]{{0}} all-reduce(%x), {groups}\n}}")
    assert replica_group(module.computations["main"]["y"]) == expected


def test_a_loop_over_data_is_counted_once_and_named():
    module = parse(PROGRAM.replace("direction=LT", "direction=NE"))
    assert uncounted(module) == ("loop",)
    assert {run.times for run in executed(module)} == {1}
    assert uncounted(parse(PROGRAM)) == ()


def test_counted_products_of_a_compiled_program_are_those_of_its_source():
    """By the CPU's compiler, whose loops carry their counts: a scan of 5 under a gradient."""

    def f(stack, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack)[0].sum()

    stack, x = jnp.ones((5, 16, 16)), jnp.ones((8, 16))
    text = jax.jit(jax.grad(f, argnums=0)).lower(stack, x).compile().as_text()
    counted = flops(parse(text), lambda name, queries: 0.0)
    # Forward 5; backward 5 for the matrices and 5 for what is below them, the first's unused.
    assert counted.products in (15 * 2 * 8 * 16 * 16, 14 * 2 * 8 * 16 * 16)


def test_an_out_of_memory_message_gives_need_and_limit():
    memory = out_of_memory("RESOURCE_EXHAUSTED: ... Used 32.50G of 15.75G hbm. Exceeded ...")
    assert memory is not None
    assert (memory.peak, memory.limit, memory.fits) == (32.5 * GIB, 15.75 * GIB, False)
    other = "required for HLO temporaries (32.00G) exceeds available HBM (15.75G)."
    assert out_of_memory(other) == MemoryPlan(32 * GIB, int(15.75 * GIB))
    assert out_of_memory("INTERNAL: something else") is None


def test_visible_pairs_are_counted_by_hand():
    for length, window in [(4, None), (4, 2), (5, 9), (6, 1)]:
        seen = [t - s < (window or length) for t in range(length) for s in range(t + 1)]
        assert visible_pairs(length, window) == sum(seen)


def test_model_flops_are_six_per_parameter_and_token_plus_attention():
    config = from_hf(ARCHITECTURES["meta-llama/Llama-3.1-8B-Instruct"])
    rows = RowShape(rows=2, length=128, trained=128)
    embedding, norms = 128256 * 4096, (2 * 32 + 1) * 4096
    products = 6 * (8_030_261_248 - embedding - norms) * 256
    attention = 3 * 2 * 32 * 4 * 4096 * (128 * 129 / 2)
    assert training_flops(config, None, rows) == products + attention


PARAMETERS = {
    "smollm2-135m": 134_515_008,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.1-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-8B": 8_190_735_360,
}


@pytest.mark.parametrize("source", ARCHITECTURES)
def test_shipped_architectures_have_the_published_number_of_parameters(source):
    fields = ARCHITECTURES[source]
    assert fields["model_type"] in FAMILIES
    assert count(split(abstract(from_hf(fields))).base) == PARAMETERS[source]


def test_the_roofline_is_the_slowest_resource():
    topology = Topology("v5e:1x1", "v5e", "1x1", 1, devices=(None,))
    least = roofline(Workload(197e12, 81.9e9, 10e9, 0.0), topology)
    np.testing.assert_allclose(least, [1.0, 0.1, 0.1, 0.0])
    assert (least.step, least.bound) == (1.0, "compute")
    assert least.serial == pytest.approx(1.2)
    assert mfu(98.5e12, least.step, topology) == pytest.approx(0.5)


def test_a_ring_sends_all_parts_but_one():
    assert sent_share("all-gather", 4) == sent_share("reduce-scatter", 4) == 0.75
    assert sent_share("all-reduce", 4) == 1.5
    assert sent_share("collective-permute", 16) == 1.0


def test_smaller_changes_are_tried_first_and_then_together():
    changes = [
        Change("a", lambda x: x + 1),
        Change("b", lambda x: None if x else x + 10),
        Change("c", lambda x: x + 100),
    ]
    tried = [(names, value) for names, value in candidates(0, changes)]
    assert tried == [(("a",), 1), (("b",), 10), (("c",), 100), (("a", "c"), 101)]


def test_meshes_multiply_to_the_devices():
    found = list(meshes(8, 2))
    assert len(set(found)) == len(found) == 7
    assert {math.prod(mesh) for mesh in found} == {8}
    assert max(tensor for _, _, tensor in found) == 2


@pytest.mark.parametrize("name", ["v9:4x4", "v5e", "h100:3", "h100:2x2", "v5e:4x4*"])
def test_an_unknown_topology_names_those_there_are(name):
    with pytest.raises(InputError, match=r"v5e:4x4|one of 1, 2"):
        open_topology(name)


def test_rules_of_the_config_come_before_the_general_ones():
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    shape = (8, 16)
    plain = parameter_sharding(("vocab", "embed"), shape, mesh)
    other = parameter_sharding(("vocab", "embed"), shape, mesh, (("vocab", None),))
    assert plain.spec == PartitionSpec("tensor", "fsdp")
    assert other.spec == PartitionSpec(None, "fsdp")
    with pytest.raises(InputError, match="mesh axes are data, fsdp, tensor"):
        parameter_sharding(("vocab",), (8,), mesh, (("vocab", "model"),))


def test_a_gathered_matrix_is_whole_and_its_gradient_is_not():
    mesh = make_mesh(MeshConfig(data=1, fsdp=8))
    home = NamedSharding(mesh, PartitionSpec("fsdp", None))
    matrix = jax.device_put(jnp.arange(128.0).reshape(16, 8), home)

    def f(matrix):
        whole = all_gather_fsdp(matrix, ("embed", "vocab"), Layout(mesh))
        return (whole**2).sum(), whole

    gradient, whole = jax.jit(jax.grad(f, has_aux=True))(matrix)
    assert whole.sharding.is_fully_replicated
    assert gradient.sharding.is_equivalent_to(home, 2)
    np.testing.assert_array_equal(gradient, 2 * np.asarray(matrix))


def test_slices_must_divide_the_data_axis_and_be_there():
    with pytest.raises(InputError, match="must divide data"):
        make_mesh(MeshConfig(data=2, fsdp=4, slices=4))
    with pytest.raises(InputError, match=r"config\.mesh\.slices is 2"):
        make_mesh(MeshConfig(data=2, fsdp=4, slices=2))


TINY = "configs/sft.py:tiny"
SMALL = [
    "--config.model.dtype=float32",
    "--config.data.row_length=256",
    "--config.data.batch_size=8",
    "--config.execution.remat=attention",
]


@pytest.fixture(scope="module")
def libtpu():
    pytest.importorskip("libtpu", reason="hen plan compiles for TPUs: pip install 'hen_jax[plan]'")


@pytest.mark.usefixtures("libtpu")
def test_a_tiny_stage_is_compiled_by_the_tpu_compiler(tmp_path, capsys):
    out = tmp_path / "plan.json"
    (found,) = plan(TINY, SMALL, "v5e:2x4", out=out)
    assert found.fits
    assert found.costs is not None
    assert 1.0 < found.costs.recompute < 2.0
    assert 0.0 < found.costs.mfu < 1.0
    text = capsys.readouterr().out
    assert "sft on v5e:2x4 (8 chips): fits, by the TPU compiler" in text
    (written,) = json.loads(out.read_text())
    assert written["costs"]["mfu"] == found.costs.mfu
    assert written["memory"]["limit"] == 16 * GIB


@pytest.mark.usefixtures("libtpu")
def test_two_slices_talk_only_to_sum_gradients():
    topology = open_topology("v5e:2x2*2")
    mesh = make_mesh(MeshConfig(data=2, fsdp=4, slices=2), topology.devices)
    assert [{d.slice_index for d in row.flat} for row in mesh.devices] == [{0}, {1}]


def test_a_stage_or_a_model_that_is_not_there_is_named():
    with pytest.raises(
        InputError, match="--stage=reward: the recipe 'sft' has sft, decode, rollout"
    ):
        plan(TINY, [], "v5e:2x4", stage="reward")
    with pytest.raises(InputError, match="is no model folder"):
        plan(TINY, ["--config.model.source=nobody/nothing"], "v5e:2x4")


@pytest.mark.usefixtures("libtpu")
def test_decoding_is_planned_with_the_room_and_the_experts_asked_for():
    config = load_config("experts:tiny", ["--config.execution.base_dtype=int8"])
    asked, topology = settings(EXPERTS.settings, config), open_topology("v5e:2x2")
    made = decoding_program("decode", EXPERTS, asked, topology, CacheRoom(8, 64, "float8_e4m3fn"))
    (adapter, base), state, _ = made.arguments
    layers = state.cache.layers
    assert made.tokens == layers.keys.shape[1] == 8
    assert layers.keys.shape[-1] >= 64
    assert layers.keys.dtype == layers.values.dtype == jnp.float8_e4m3fn
    columns = {leaf.shape[-1] for path, leaf in flatten(adapter).items() if "lora_a" in path}
    assert columns == {4 * 16}
    assert state.rows.gate.shape == (8, 4 * 16)
    assert any(leaf.dtype == jnp.int8 for leaf in jax.tree.leaves(base))
    with pytest.raises(InputError, match="--rows=6 does not divide over 4 chips"):
        decoding_program("decode", EXPERTS, asked, topology, CacheRoom(rows=6))
    with pytest.raises(InputError, match="--places=99999: the model has 2048 positions"):
        decoding_program("decode", EXPERTS, asked, topology, CacheRoom(places=99999))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--rows=4",), "are of --stage=decode"),
        (("--stage=decode", "--places=0"), "must be at least 1"),
    ],
)
def test_room_that_no_plan_has_is_refused(capsys, flags, says):
    assert cli.main(["plan", f"--config={TINY}", "--topology=v5e:2x4", *flags]) == 2
    assert says in capsys.readouterr().err


def test_what_a_run_would_refuse_is_not_planned(monkeypatch):
    config = load_config(TINY, ["--config.data.packing=shared_prefix"])
    config.update({"execution": {"attention": "splash"}})
    monkeypatch.setattr("hen_jax.verbs.plan.load_config", lambda *_: config)
    with pytest.raises(InputError, match=r"config\.execution\.attention='splash' cannot mask"):
        plan(TINY, [], "v5e:2x4")


@pytest.mark.slow  # compiled for a TPU
@pytest.mark.usefixtures("libtpu")
def test_the_curriculum_is_a_stage_like_any_other():
    rows = ["--config.episode.support_rows=8", "--config.episode.query_rows=8"]
    config = load_config("configs/emcl.py:tiny", [*rows, "--config.emcl.inner_steps=1"])
    topology = open_topology("v5e:2x4")
    made = program(STAGE, settings(EmclSettings, config), topology)
    assert made.tokens == 4 * (8 + 8) * 256
    text = made.step.lower(*made.arguments).as_text()
    assert "num_partitions = 8" in text
    assert made.model_flops > 0


@pytest.mark.usefixtures("libtpu")
def test_a_program_too_large_for_a_chip_is_a_result_and_not_an_error():
    topology = open_topology("v5e:1x1")
    here = NamedSharding(make_mesh(MeshConfig(), topology.devices), PartitionSpec())
    large = jax.ShapeDtypeStruct((2**16, 2**16), jnp.float32, sharding=here)  # 16 GiB
    done = compile_program(jax.jit(lambda x: x + 1).lower(large), topology.chip.hbm)
    assert not done.memory.fits
    assert done.memory.limit < 16 * GIB < done.memory.peak
    small = jax.ShapeDtypeStruct((2**10, 2**10), jnp.float32, sharding=here)
    done = compile_program(jax.jit(lambda x: x + 1).lower(small), topology.chip.hbm)
    assert (done.memory.peak, done.memory.arguments) == (2 * 2**22, 2**22)


def test_a_search_without_a_mesh_is_refused():
    pytest.importorskip("libtpu", reason="hen plan compiles for TPUs: pip install 'hen_jax[plan]'")
    with pytest.raises(InputError, match="1 rows of a batch divide over no mesh of 4 chips"):
        plan("sft:tiny", ["--config.data.batch_size=1"], "v5e:2x2", search=True)
