"""Our side of `meta_vs_torch.py`: `python ours_meta.py TASK.json RESULT.json`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import cpu_seconds, peak_bytes
from meta_start import TARGETS, start
from products import products_of, seconds_alone


def measured(task: dict) -> dict:
    """The meta-gradient of the task, timed; the gradients are written to `task["gradients"]`."""
    import flax
    import jax

    step, arguments = prepared(task)
    products = products_of(step, *arguments)
    began = time.perf_counter()
    step = jax.jit(step).lower(*arguments).compile()
    compile_s = time.perf_counter() - began
    found = jax.block_until_ready(step(*arguments))
    seconds, cpu = [], []
    for _ in range(task["repeats"]):
        began, before = time.perf_counter(), cpu_seconds()
        found = jax.block_until_ready(step(*arguments))
        seconds.append(time.perf_counter() - began)
        cpu.append(cpu_seconds() - before)
    peak = peak_bytes()
    value, theta, rates = found
    np.savez(task["gradients"], **named(theta), **named(rates, "rate/"))
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "compile_s": compile_s,
        "peak_bytes": peak,
        "value": float(value),
        "products_flops": sum(one.flops() * often for one, often in products.items()),
        "products_seconds": seconds_alone(products),
        "versions": {"jax": jax.__version__, "flax": flax.__version__},
    }


def prepared(task: dict) -> tuple:
    """The meta-step and its arguments: start, base, rates, support batches, query."""
    import jax
    import jax.numpy as jnp

    from hen_jax.core.mesh import MeshConfig, make_mesh
    from hen_jax.core.types import Batch
    from hen_jax.meta.gradients import meta_gradient
    from hen_jax.meta.inner import InnerLoop, descend
    from hen_jax.meta.losses import mean_loss
    from hen_jax.models.config import Execution, LoraConfig
    from hen_jax.models.remat import PRODUCTS
    from hen_jax.runs.model import open_model
    from hen_jax.steps.sft import sft_loss

    execution = Execution("float32", task["remat"])
    lora = LoraConfig(task["rank"], task["alpha"])
    model = open_model(Path(task["model"]), make_mesh(MeshConfig()), lora=lora, execution=execution)
    every = [
        Batch(**{name: np.array(x, _dtype(name)) for name, x in one.items()})
        for one in task["batches"]
    ]
    # The most positions that any row trains; whole chunks of them go through the vocabulary.
    capacity = int(max(batch.mask.sum(axis=1).max() for batch in every))
    sft = sft_loss(model.graphdef, capacity, capacity, reach_of(every))

    def step(theta: Any, base: Any, rates: Any, batches: Batch, query: Batch) -> tuple:
        scalar = mean_loss(lambda theta, _, batch: sft(theta, base, batch), task["microbatches"])
        keep = PRODUCTS if task["keep"] else None
        inner = InnerLoop(scalar, descend, len(every) - 1, keep=keep)
        found = meta_gradient(inner, scalar, task["mode"])(theta, rates, batches, query)
        return found.value, found.theta, found.eta

    theta = adapter(model.base["blocks"], task)
    rates = jax.tree.map(lambda _: jnp.float32(task["rate"]), theta)
    batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *every[:-1])
    query = jax.tree.map(jnp.asarray, every[-1])
    return step, (theta, model.base, rates, batches, query)


def reach_of(batches: list) -> Any:
    """The longest document, the longest prefix and the most documents of any row."""
    from hen_jax.core.types import SHARED, RowLimits

    rows = [row for batch in batches for row in batch.segments]
    longest = max(int(np.bincount(row[row > 0]).max(initial=1)) for row in rows)
    prefix = max(int((row == SHARED).sum()) for row in rows)
    return RowLimits(longest, prefix, max(int(row.max()) for row in rows))


def adapter(blocks: Any, task: dict) -> Any:
    """The shared start as our tree."""
    import jax.numpy as jnp

    kernels = {name: blocks[part][name]["kernel"] for name, part in TARGETS.items()}
    shapes = {name: kernel.shape[1:] for name, kernel in kernels.items()}
    leaves = start(shapes, kernels["q"].shape[0], task["rank"], task["seed"])
    tree: dict = {"blocks": {"attn": {}, "mlp": {}}}
    for name, part in TARGETS.items():
        tree["blocks"][part][name] = {
            f"lora_{side}": jnp.asarray(leaves[f"{name}/{side}"]) for side in ("a", "b")
        }
    return tree


def named(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """The leaves under the names of `meta_start`."""
    return {
        f"{prefix}{name}/{side}": np.asarray(tree["blocks"][part][name][f"lora_{side}"])
        for name, part in TARGETS.items()
        for side in ("a", "b")
    }


def _dtype(name: str) -> type:
    return np.float32 if name == "mask" else np.int32


if __name__ == "__main__":
    given, written = map(Path, sys.argv[1:])
    result = measured(json.loads(given.read_text(encoding="utf-8")))
    written.write_text(json.dumps(result), encoding="utf-8")
