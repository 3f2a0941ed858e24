"""Four experts trained together, ours, against four LoRA runs in sequence with TRL and PEFT.

    python benchmarks/experts_vs_trl.py --model models/smollm2-135m

The shipped steered conversations of four contexts, an expert each: the chosen side, rendered once,
here, so that both sides get the same token ids and labels, the same LoRA (rank 16 on all linear
layers), AdamW, learning rate and conversations per update and expert. Ours is one run of all
experts, packed or not; theirs four runs one after another in one process, that loads the model for
each as four commands would, which is not counted. Theirs runs with and without gradient
checkpointing and with packing, which counts only where no document sees another (`leak`); the
verdict is our fastest against their fastest, memory the highest of the process.
"""

import argparse
from pathlib import Path

import duel
from our_epoch import train_epoch
from sft_vs_trl import LEAK

CONTEXTS = ("distress", "career", "learning", "writing")


def ours(task: dict) -> dict:
    """One epoch of every expert through the parts of `hen_jax.recipes.experts`."""
    import jax
    import numpy as np

    from hen_jax.adapters.experts import joint_lora
    from hen_jax.core.mesh import MeshConfig, make_mesh
    from hen_jax.data.examples import Example
    from hen_jax.data.joined import JoinedBatches, Stream
    from hen_jax.data.pipeline import (
        PipelineConfig,
        batches_per_epoch,
        row_bounds,
        train_batches,
        widest,
    )
    from hen_jax.models.config import Execution, LoraConfig
    from hen_jax.runs.earlier import new_adapters
    from hen_jax.runs.model import open_model
    from hen_jax.steps.experts import experts_loss, experts_step
    from hen_jax.training.optimizers import OptimizerConfig, make_optimizer, make_schedule
    from hen_jax.training.placement import initial_state, to_devices

    examples = [
        [
            Example(
                np.array(one["input_ids"], np.int32),
                np.array(one["labels"]) != duel.IGNORED,
                id=f"{context}-{number}",
                group=f"{context}-{number}",
            )
            for number, one in enumerate(own)
        ]
        for context, own in task["examples"].items()
    ]
    longest = max(one.length for own in examples for one in own)
    length = task["row_length"] if task["packing"] else longest
    data = PipelineConfig(length, task["batch_size"], task["packing"] or "none")
    steps = [round(batches_per_epoch(own, data)) for own in examples]
    mesh = make_mesh(MeshConfig())
    named = {context: LoraConfig(task["rank"], task["alpha"]) for context in task["examples"]}
    execution = Execution(task["precision"], task["remat"])
    model = open_model(
        Path(task["model"]), mesh, lora=joint_lora(named), execution=execution, dtype="float32"
    )
    settings = OptimizerConfig(task["learning_rate"], schedule="linear", warmup=0.0)
    optimizers = {
        name: make_optimizer(settings, make_schedule(settings, own))
        for name, own in zip(named, steps, strict=True)
    }
    made = new_adapters(model, named, execution, 0)
    state = initial_state(made.trainable, optimizers, 0, mesh)
    bounds = widest(row_bounds(own, data) for own in examples)
    loss = experts_loss(model.graphdef, named, bounds.trained, task["logit_chunk"], bounds.reach)
    step = jax.jit(experts_step(loss, optimizers), donate_argnums=0)
    put = to_devices(mesh)
    batches = JoinedBatches(
        [
            Stream(number, own, train_batches(rows, data))
            for number, (own, rows) in enumerate(zip(steps, examples, strict=True))
        ]
    )
    done = train_epoch(
        step, state, made.frozen, put, batches, max(steps), lambda one: int(one.mask.sum())
    )
    return done.timed | {
        "amount": done.counted,
        "compile_s": done.compile_s,
        "loss": done.losses[-1],
    }


def rendered(model: Path) -> dict[str, list[dict]]:
    """Token ids and labels of each context's conversations, in TRL's form."""
    from hen_jax.data import samples
    from hen_jax.data.examples import encode
    from hen_jax.data.schemas import read_documents
    from hen_jax.text.detect import open_chat_tokenizer

    tokenizer, found = open_chat_tokenizer(model), {}
    for context in CONTEXTS:
        documents = read_documents(samples.path(f"eea/{context}.jsonl"), "steered")
        encoded = encode(documents, tokenizer, max_length=1024, overlong="drop")
        found[context] = [
            {
                "input_ids": one.tokens.tolist(),
                "labels": [
                    token if trains else duel.IGNORED
                    for token, trains in zip(one.tokens.tolist(), one.mask.tolist(), strict=True)
                ],
            }
            for one in encoded.examples
        ]
    return found


def sides(options: argparse.Namespace) -> dict[str, duel.Side]:
    """What is run, by name."""
    examples = rendered(options.model)
    if options.conversations:
        examples = {name: own[: options.conversations] for name, own in examples.items()}
    shared = {
        "model": str(options.model),
        "examples": examples,
        "precision": options.precision,
        "weights": "float32",
        "max_updates": 0,
        "learning_rate": 5e-4,
        "rank": 16,
        "alpha": 32.0,
        "remat": "dots",
        "logit_chunk": 64,
        "checkpointing": False,
    }
    rows = max(1, options.records // 2)  # of 768 tokens, about as many conversations
    packed = shared | {"packing": "fewest_rows", "row_length": 768, "batch_size": rows}
    apart = shared | {"packing": None, "row_length": 1024, "batch_size": options.records}

    def peer(task: dict) -> duel.Side:
        return duel.Side("peer_trl.py:in_sequence", task, options.peer_python)

    every = {
        "ours, packed": duel.Side("ours", packed),
        "ours": duel.Side("ours", apart),
        "theirs": peer(apart),
        "theirs, packed": peer(packed),
        "theirs, checkpointing": peer(apart | {"checkpointing": True}),
    }
    return {name: side for name, side in every.items() if name in (options.only or every)}


def compare() -> None:
    """Our fastest against theirs that leaks nothing."""
    parser = duel.arguments(__doc__, rounds=1)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--records", type=int, default=4, help="per update and expert")
    parser.add_argument("--conversations", type=int, default=0, help="of a context; 0: all")
    parser.add_argument("--only", nargs="*", default=[], help="of the runs, by name")
    options = parser.parse_args()
    runs = duel.meet(sides(options), options.rounds)
    counts = {name: {run["amount"] for run in some} for name, some in runs.items()}
    least, most = min(map(min, counts.values())), max(map(max, counts.values()))
    if most > 1.05 * least:  # a last batch of packed rows may be filled up or left out
        raise SystemExit(f"not the same tokens were trained: {counts}")
    for run in (run for some in runs.values() for run in some):
        run["trained/s"] = duel.speeds([run])[0]
    clean = {name: some for name, some in runs.items() if some[0].get("leak", 0.0) < LEAK}
    best = duel.fastest(clean, "theirs")
    duel.report(runs, best, options.out, show=("trained/s", "compile_s", "loss", "leak"))
    print(f"the verdict is of {duel.fastest(runs, 'ours')!r} against {best!r}")


if __name__ == "__main__":
    duel.main(compare, ours)
