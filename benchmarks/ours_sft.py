"""Our side of `sft_vs_trl.py`: `python ours_sft.py TASK.json RESULT.json`, a process of its own."""

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from measure import IGNORED, PROBE, best_rate, cpu_seconds, peak_bytes


def train_ours(task: dict) -> dict:
    """One epoch through the parts of `hen_jax.recipes.sft`."""
    from hen_jax.core.trees import count
    from hen_jax.data.pipeline import train_batches

    examples, data = _examples(task)
    step, state, frozen, put, updates = _prepared(task, examples, data)
    adapter = count(state.params)
    batches = train_batches(examples, data)
    first = next(batches)
    start = time.perf_counter()
    step = step.lower(state, frozen, put(first)).compile()
    compile_s = time.perf_counter() - start
    batches = itertools.islice(itertools.chain([first], batches), updates)
    measured = _epoch(step, state, frozen, put, batches)
    return measured | {
        "compile_s": compile_s,
        "peak_bytes": peak_bytes(),
        "temporary_bytes": step.memory_analysis().temp_size_in_bytes,
        "adapter": adapter,
        "block_matrices": block_matrices(frozen),
        "unembedding": frozen["embed"]["embedding"].size,
        "matmul_rate": matmul_rate(),
        "versions": _versions(),
    }


def _examples(task: dict) -> tuple[list, Any]:
    import numpy as np

    from hen_jax.data.examples import Example
    from hen_jax.data.pipeline import PipelineConfig

    examples = [
        Example(
            np.array(one["input_ids"], np.int32),
            np.array(one["labels"]) != IGNORED,
            id=str(number),
            group=str(number),
        )
        for number, one in enumerate(task["examples"])
    ]
    packing = task["packing"] or "none"
    length = task["row_length"] if task["packing"] else max(one.length for one in examples)
    return examples, PipelineConfig(length, task["batch_size"], packing)


def _prepared(task: dict, examples: list, data: Any) -> tuple:
    """The jitted step, its state, the frozen base, the batch's way to the device, the updates."""
    import jax

    from hen_jax.core.mesh import MeshConfig, make_mesh
    from hen_jax.data.pipeline import batches_per_epoch, row_bounds
    from hen_jax.models.config import Execution, LoraConfig
    from hen_jax.models.decoder import Decoder
    from hen_jax.runs.model import open_model
    from hen_jax.steps.sft import sft_loss
    from hen_jax.steps.update import update_step
    from hen_jax.training.optimizers import OptimizerConfig, make_optimizer, make_schedule
    from hen_jax.training.placement import initial_adapter, initial_state, to_devices

    mesh = make_mesh(MeshConfig())
    lora = LoraConfig(task["rank"], task["alpha"])
    execution = Execution(task["precision"], task["remat"])
    model = open_model(
        Path(task["model"]), mesh, lora=lora, execution=execution, dtype=task["weights"]
    )
    adapter = initial_adapter(
        lambda key: Decoder(key, model.config, lora, execution), model.shardings, seed=0
    )
    updates = task["max_updates"] or round(batches_per_epoch(examples, data))
    settings = OptimizerConfig(task["learning_rate"], schedule="linear", warmup=0.0)
    optimizer = make_optimizer(settings, make_schedule(settings, updates))
    bounds = row_bounds(examples, data)
    loss = sft_loss(model.graphdef, bounds.trained, task["logit_chunk"], bounds.reach)
    step = jax.jit(update_step(loss, optimizer), donate_argnums=0)
    state = initial_state(adapter, optimizer, 0, mesh)
    return step, state, model.base, to_devices(mesh), updates


def _epoch(step: Any, state: Any, frozen: Any, put: Any, batches: Any) -> dict:
    """As `training.loop.train`: metrics of an update are fetched after the next is dispatched."""
    from hen_jax.training.metrics import fetch_metrics

    losses, pending, trained, tokens = [], [], 0, 0
    start, cpu = time.perf_counter(), cpu_seconds()
    for batch in batches:
        state, metrics = step(state, frozen, put(batch))
        losses += [fetch_metrics(one)["loss"] for one in pending]
        pending = [metrics]
        trained += int(batch.mask.sum())
        tokens += int((batch.segments != 0).sum())
    losses += [fetch_metrics(one)["loss"] for one in pending]
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": cpu_seconds() - cpu,
        "losses": losses,
        "trained": trained,
        "tokens": tokens,
    }


def block_matrices(base: Any) -> int:
    """Parameters of the linear layers of all blocks."""
    from hen_jax.core.trees import flatten

    return sum(
        leaf.size
        for path, leaf in flatten(base).items()
        if path.startswith("blocks/") and path.endswith("/kernel")
    )


def matmul_rate() -> float:
    import jax
    import jax.numpy as jnp

    x, y = jnp.ones(PROBE[:2]), jnp.ones(PROBE[1:])
    product = jax.jit(jnp.matmul)
    return best_rate(lambda: product(x, y).block_until_ready())


def _versions() -> dict[str, str]:
    import flax
    import jax

    return {"jax": jax.__version__, "flax": flax.__version__}


if __name__ == "__main__":
    given, written = map(Path, sys.argv[1:])
    measured = train_ours(json.loads(given.read_text(encoding="utf-8")))
    written.write_text(json.dumps(measured), encoding="utf-8")
