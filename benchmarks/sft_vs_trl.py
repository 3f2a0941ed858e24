"""Trained tokens per second of LoRA SFT, ours against TRL + PEFT, in one run on one machine.

    python benchmarks/sft_vs_trl.py --model DIR --out sft.json

One epoch of the shipped English HED set (320 records), rendered once, here: both sides get the same
token ids and the same labels, the same LoRA (rank 16 on all linear layers), AdamW, learning rates
and records per update. Every measurement is a fresh process, ours and theirs in turn: ours in this
interpreter, theirs in `--peer-python` (torch, transformers, peft, trl). Theirs runs with and
without gradient checkpointing (on is TRL's default); the verdict takes the faster.

Seconds are those of the epoch; compilation (ours) is told apart. A trained token is a target that
counts in the loss. The work of an epoch, whoever does it, is

    n (4 P + 6 A) + 4 m V D   float operations

for n tokens, of which m train, P parameters in the blocks' matrices, A in the adapter, V D in the
unembedding: 2 per parameter and token forward, 2 for the gradient of the activations, 2 more for
that of a trained parameter. Padding, attention and recomputation count for nothing. The share of
the matmul rate is this work per second over the fastest float32 [1024, 576] x [576, 1536] of either
library in this run.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import cpu_seconds, in_child, peak_bytes

IGNORED = -100
"""The label of a token that does not train, as torch has it."""


def rendered(model: Path) -> list[dict]:
    """Token ids and labels of all 320 records, in TRL's form."""
    from hen_jax.data import samples
    from hen_jax.data.examples import Document, encode
    from hen_jax.data.hed import hed_conversation, read_hed
    from hen_jax.recipes.models import open_words

    documents = [
        Document(record.id, record.statement_id, hed_conversation(record))
        for record in read_hed(samples.path("hed/hed.en.jsonl"))
    ]
    encoded = encode(documents, *open_words(model), max_length=1024, overlong="drop")
    return [
        {
            "input_ids": one.tokens.tolist(),
            "labels": [
                token if trains else IGNORED
                for token, trains in zip(one.tokens.tolist(), one.mask.tolist(), strict=True)
            ],
        }
        for one in encoded.examples
    ]


def train_ours(task: dict) -> dict:
    """One epoch through the parts of `hen_jax.recipes.sft`."""
    import jax
    import numpy as np

    from hen_jax.core.mesh import MeshConfig, make_mesh
    from hen_jax.core.trees import count
    from hen_jax.data.examples import Example
    from hen_jax.data.pipeline import PipelineConfig, batches_per_epoch, trained_capacity
    from hen_jax.data.pipeline import train_batches
    from hen_jax.models.config import Execution, LoraConfig
    from hen_jax.models.decoder import Decoder
    from hen_jax.recipes.models import open_model
    from hen_jax.steps.sft import sft_loss
    from hen_jax.steps.update import update_step
    from hen_jax.training.metrics import fetch
    from hen_jax.training.optimizers import OptimizerConfig, make_optimizer, make_schedule
    from hen_jax.training.placement import initial_adapter, initial_state, to_devices

    examples = [
        Example(np.array(one["input_ids"]), np.array(one["labels"]) != IGNORED, str(i), str(i))
        for i, one in enumerate(task["examples"])
    ]
    data = PipelineConfig(
        task["row_length"], task["batch_size"], "fewest_rows" if task["packing"] else "none"
    )
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
    loss = sft_loss(model.graphdef, trained_capacity(examples, data), task["logit_chunk"])
    state = initial_state(adapter, optimizer, 0, mesh)
    put = to_devices(mesh)
    batches = train_batches(examples, data)
    first = next(batches)

    start = time.perf_counter()
    step = jax.jit(update_step(loss, optimizer), donate_argnums=0)
    step = step.lower(state, model.base, put(first)).compile()
    compile_s = time.perf_counter() - start

    pending, metrics = [], []
    start, cpu = time.perf_counter(), cpu_seconds()
    for batch in itertools.islice(itertools.chain([first], batches), updates):
        state, now = step(state, model.base, put(batch))
        metrics += map(fetch, pending)
        pending = [now]
    metrics += map(fetch, pending)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": cpu_seconds() - cpu,
        "compile_s": compile_s,
        "peak_bytes": peak_bytes(),
        "losses": [values["loss"] for values in metrics],
        "temporaries": step.memory_analysis().temp_size_in_bytes,
        "trainable": count(adapter),
    }


if __name__ == "__main__":
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(train_ours(task)))
