"""The large models themselves: forward, train and decode for CUDA and for a TPU slice; a search.

Minutes of compiling each, so `make plan-test` runs them and `make test` does not.
"""

import jax
import jax.numpy as jnp
import pytest

from hen_jax.core.files import read_json
from hen_jax.core.mesh import BATCH, Layout, MeshConfig, make_mesh
from hen_jax.core.trees import map_with_path
from hen_jax.data.pipeline import PipelineConfig
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.planning.memory import compile_program
from hen_jax.planning.topologies import open_topology
from hen_jax.recipes.sft import STAGE, SftSettings
from hen_jax.runs.abstract import abstract_batch, program, read_architecture
from hen_jax.runs.abstract_decoding import decoding_program
from hen_jax.runs.model import ModelSettings
from hen_jax.training.optimizers import OptimizerConfig
from hen_jax.training.placement import parameter_shardings
from hen_jax.verbs.plan import plan

pytestmark = pytest.mark.slow

MODELS = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen3-8B",
    "microsoft/Phi-3-mini-4k-instruct",
)
ROWS, LENGTH = 16, 2048


@pytest.fixture(scope="module")
def topology():
    pytest.importorskip("libtpu", reason="compiles for TPUs: pip install hen_jax[plan]")
    return open_topology("v5e:4x4")


def settings_of(source, attention):
    return SftSettings(
        recipe="sft",
        model=ModelSettings(source, "bfloat16"),
        sources=(),
        optimizer=OptimizerConfig(1e-4),
        epochs=1.0,
        adapter=LoraConfig(rank=16, alpha=32.0),
        data=PipelineConfig(row_length=LENGTH, batch_size=ROWS),
        execution=Execution("bfloat16", "attention", attention),
        mesh=MeshConfig(data=1, fsdp=-1),
        logit_chunk=512,
    )


def train(source, topology, attention):
    made = program(STAGE, settings_of(source, attention), topology)
    return made.step, made.arguments


def forward(source, topology, attention):
    graphdef, params, mesh = placed_model(source, topology, attention)
    batch = abstract_batch((ROWS,), LENGTH, mesh, (BATCH,))

    def run(params, batch):
        model = merge(graphdef, params)
        return model.logits(model.hidden(batch.tokens, batch.positions, batch.segments)[:, -1])

    return jax.jit(run), (params, batch)


def decode(source, topology, attention):
    made = decoding_program("decode", STAGE, settings_of(source, attention), topology)
    return made.step, made.arguments


def placed_model(source, topology, attention):
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1), topology.devices)
    execution = Execution("bfloat16", "block", attention)
    model = abstract(read_architecture(source), None, execution, Layout(mesh))
    shardings = parameter_shardings(model, mesh)

    def place(path, leaf):
        return jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=shardings[path])

    parts = split(model)
    return parts.graphdef, map_with_path(place, parts.base), mesh


STEPS = [pytest.param(step, id=step.__name__) for step in (forward, train, decode)]


@pytest.mark.parametrize("source", MODELS)
@pytest.mark.parametrize("step", STEPS)
def test_every_step_fits_a_v5e_slice_by_its_compiler(step, source, topology):
    jitted, arguments = step(source, topology, "splash")
    done = compile_program(jitted.lower(*arguments), topology.chip.hbm)
    assert done.memory.fits, done.memory
    assert ("splash" in done.text) == (step is not decode)


@pytest.mark.parametrize("source", MODELS[:2])
def test_a_chunk_of_decoding_holds_no_second_cache(source, topology):
    """Of heads 128 wide; those of Phi-3, 96, are padded in one of two layouts, and its values are
    copied from the one to the other once a chunk."""
    jitted, arguments = decode(source, topology, "chunked")
    done = compile_program(jitted.lower(*arguments), topology.chip.hbm)
    layers = jax.tree.leaves(arguments[1].cache.layers)
    cache = sum(leaf.size * leaf.dtype.itemsize for leaf in layers) / len(topology.devices)
    # Beside gathered matrices of a layer or two; a second copy of keys or values were a half.
    assert done.memory.fits
    assert done.memory.temporaries < 0.4 * cache, (done.memory, cache)


@pytest.mark.parametrize("source", MODELS)
@pytest.mark.parametrize("step", STEPS)
def test_every_step_lowers_for_cuda(step, source, topology):
    jitted, arguments = step(source, topology, "chunked")
    lowered = jitted.trace(*arguments).lower(lowering_platforms=("cuda",))
    assert "stablehlo.dot_general" in lowered.as_text()


def test_a_search_compiles_every_mesh_and_puts_the_fastest_first(topology, tmp_path, capsys):
    found = plan("configs/sft.py:tiny", [], "v5e:2x2", out=tmp_path / "plan.json", search=True)
    assert all(one.fits for one in found)
    rates = [one.costs.tokens_per_second for one in found if one.costs is not None]
    assert len(rates) == 5  # 1, 2 or 4 ways of rows; tensor at most the 2 heads of keys
    assert rates == sorted(rates, reverse=True)
    assert len(read_json(tmp_path / "plan.json")) == 5
    assert "best: MeshConfig(" in capsys.readouterr().out
