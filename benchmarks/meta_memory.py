"""What a meta-gradient needs on a TPU slice, told by the TPU compiler; no chip is touched.

    pip install 'hen_jax[plan]'
    python benchmarks/meta_memory.py

Every row of the table compiles one whole meta-step for `v5e:4x4` (16 chips of 16 GB) and reads the
temporaries per chip off the compiled program: inner Adam (bfloat16 products, float32 trainables),
16 x 2,048 tokens per inner step and for the query, all of them trained, a learnt weight per task
and a learnt rate per tensor; derivatives with respect to the start, the weights and the rates. The
frozen base is bfloat16. A program that does not fit is refused by the compiler, which says what it
would have needed: "does not fit" is such a row.

Arguments (batches, base and start) and results (the gradients) are told apart from temporaries;
together they are what has to fit.
"""

import re
import sys
import time
from typing import Any

import duel

GIB = 2**30
ROWS, LENGTH, TASKS = 16, 2048, 4
LORA_RANK = 16

SIZES: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": {
        "width": 2048, "layers": 16, "heads": 32, "kv_heads": 8, "head_dim": 64,
        "mlp_width": 8192, "tied_head": True,
    },
    "llama-3.1-8b": {
        "width": 4096, "layers": 32, "heads": 32, "kv_heads": 8, "head_dim": 128,
        "mlp_width": 14336, "tied_head": False,
    },
}  # fmt: skip
"""Published shapes; all of them have 128,256 words and rope theta 500,000."""


def case(size: str, inner: str, mode: str, steps: int, **options: Any) -> dict:
    """One row of the table; `options` replace how it is computed."""
    how = {"mesh": [1, 16, 1], "microbatches": 1, "attention": "chunked", "chunk": 64}
    return {"size": size, "inner": inner, "mode": mode, "steps": steps} | how | options


def cases() -> list[dict]:
    """The table. Sixteen rows on four times four chips leave four rows to split in microbatches."""
    small, large = "llama-3.2-1b", "llama-3.1-8b"
    split = {"mesh": [1, 4, 4], "microbatches": 4}
    modes = ("mixflow", "first_order", "unroll")
    return [
        *(case(small, "lora", mode, 2) for mode in modes),
        *(case(small, "lora", mode, 2, **split) for mode in modes[:2]),
        *(case(large, "lora", "mixflow", steps) for steps in (8, 2, 4)),
        *(case(large, "lora", "mixflow", steps, **split) for steps in (8, 2)),
        *(case(small, "full", "mixflow", steps) for steps in (2, 4)),
        *(case(small, "lora", "mixflow", steps) for steps in (8, 4)),
    ]


def compiled_memory(task: dict) -> dict:
    """Bytes per chip of one case; a side of its own."""
    import jax

    from hen_jax.core.trees import count

    run, arguments = program(task)
    trainable = count(arguments[0])
    start = time.perf_counter()
    lowered = jax.jit(run).lower(*arguments)
    found = {"trainable": trainable, "lower_s": time.perf_counter() - start}
    start = time.perf_counter()
    try:
        analysis = lowered.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        return found | {"fits": False, "needed": _refused(str(error))}
    sizes = {
        "temporary": analysis.temp_size_in_bytes,
        "arguments": analysis.argument_size_in_bytes,
        "results": analysis.output_size_in_bytes,
    }
    seconds = time.perf_counter() - start
    return found | sizes | {"fits": True, "needed": sum(sizes.values()), "compile_s": seconds}


def program(task: dict) -> tuple:
    """The meta-step of a case, and its abstract arguments where they live."""
    import jax
    import jax.numpy as jnp
    import optax
    from jax.sharding import NamedSharding, PartitionSpec

    from hen_jax.core.mesh import BATCH, Layout, MeshConfig, make_mesh, replicated
    from hen_jax.core.trees import map_with_path
    from hen_jax.core.types import Batch
    from hen_jax.meta.gradients import meta_gradient
    from hen_jax.meta.inner import InnerLoop, descend
    from hen_jax.meta.losses import mean_loss
    from hen_jax.models.config import DecoderConfig, Execution, LoraConfig
    from hen_jax.models.decoder import abstract, split
    from hen_jax.planning.topologies import open_topology
    from hen_jax.steps.sft import sft_loss
    from hen_jax.training.placement import parameter_shardings

    full = task["inner"] == "full"
    mesh = make_mesh(MeshConfig(*task["mesh"]), open_topology("v5e:4x4").devices)
    config = DecoderConfig(
        family="llama",
        vocab_size=128_256,
        max_length=131_072,
        norm_eps=1e-5,
        rope_theta=5e5,
        **SIZES[task["size"]],
    )
    lora = None if full else LoraConfig(LORA_RANK, 2.0 * LORA_RANK)
    execution = Execution("bfloat16", task.get("remat", "block"), attention=task["attention"])
    model = abstract(config, lora, execution, Layout(mesh))
    graphdef, adapter, base = split(model)
    where = parameter_shardings(model, mesh)

    def placed(tree: Any, dtype: Any) -> Any:
        return map_with_path(
            lambda path, leaf: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=where[path]), tree
        )

    theta, base = (base, {}) if full else (adapter, base)
    theta, base = placed(theta, jnp.float32), placed(base, jnp.bfloat16)
    sft = sft_loss(graphdef, chunk=task["chunk"])

    def step(theta: Any, base: Any, eta: Any, batches: Batch, query: Batch) -> tuple:
        def weighted(theta: Any, eta: Any, batch: Batch) -> tuple:
            weight = jax.nn.softmax(eta["tasks"])[batch.task]
            return sft(theta, base, batch._replace(weight=weight))

        inner = InnerLoop(
            mean_loss(weighted, task["microbatches"]),
            lambda eta: optax.chain(optax.scale_by_adam(eps_root=1e-8), descend(eta["rates"])),
            task["steps"],
        )
        outer = mean_loss(lambda theta, _, batch: sft(theta, base, batch), task["microbatches"])
        found = meta_gradient(inner, outer, task["mode"])(theta, eta, batches, query)
        return found.value, found.theta, found.eta

    def scalar(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=replicated(mesh))

    def rows(*leading: int) -> Batch:
        axes = PartitionSpec(*[None] * len(leading), BATCH)
        here = NamedSharding(mesh, axes)

        def leaf(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((*leading, ROWS, *shape), dtype, sharding=here)

        ids, mask = leaf(jnp.int32, LENGTH), leaf(jnp.float32, LENGTH)
        return Batch(ids, ids, mask, ids, ids, task=leaf(jnp.int32))

    eta = {"tasks": scalar(TASKS), "rates": jax.tree.map(lambda _: scalar(), theta)}
    return step, (theta, base, eta, rows(task["steps"]), rows())


def _refused(message: str) -> int | None:
    """Bytes that the compiler says it would have needed; None if it does not say."""
    found = re.search(r"(?:Used |HLO temporaries \()([\d.]+)([MGT])", message)
    if found is None:
        print(message[:2000], file=sys.stderr)
        return None
    return int(float(found[1]) * {"M": 2**20, "G": GIB, "T": 1024 * GIB}[found[2]])


def line(row: dict) -> str:
    name = f"{row['size']} {row['inner']} {row['mode']:<11} {row['steps']} steps"
    mesh = "x".join(map(str, row["mesh"]))
    how = f"mesh {mesh}, {row['microbatches']} microbatches, {row['attention']}"
    if not row["fits"]:
        needed = "?" if row["needed"] is None else f"{row['needed'] / GIB:.2f} GiB"
        return f"{name:<42} does not fit: {needed} ({how})"
    return (
        f"{name:<42} temporaries {row['temporary'] / GIB:6.2f} GiB, all {row['needed'] / GIB:6.2f} "
        f"GiB, compiled in {row['compile_s']:.0f} s ({how})"
    )


def compare() -> None:
    from hen_jax.core.files import read_json, write_json

    out = duel.arguments(__doc__).parse_args().out
    known = read_json(out) if out.exists() else []
    results = []
    for task in cases():
        found = [row for row in known if {name: row.get(name) for name in task} == task]
        if not found:
            (run,) = duel.meet({"case": duel.Side("compiled_memory", task)}, 1)["case"]
            found = [task | run]
        results += found
        print(line(results[-1]), flush=True)
        write_json(out, results + [row for row in known if row not in results])


if __name__ == "__main__":
    duel.main(compare, compiled_memory)
