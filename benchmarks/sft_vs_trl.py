"""Trained tokens per second of LoRA SFT, ours against TRL + PEFT.

    python benchmarks/sft_vs_trl.py --model models/smollm2-135m

One epoch of the shipped English HED set (320 records), rendered once, here: both sides get the same
token ids and labels, the same LoRA (rank 16 on all linear layers), AdamW, learning rates and
records per update. Theirs runs with and without gradient checkpointing (on is TRL's default) and
with packing, ours also with packed rows that hold the records' common prefix once, and so more
records per update; the verdict is our fastest against their fastest. Their packing counts only
where the loss of a packed batch is that of its documents alone, which is measured (`leak`, nats a
token). bfloat16 is TRL's default there too: float32 weights under autocast, or bfloat16 weights
(`--weights`).

Seconds are those of the epoch; compilation (ours) is told apart. A trained token is a target that
counts in the loss. CPU seconds hardly see what else runs on the machine (but torch's threads spin
while they wait for a core that is taken).
"""

import argparse
from pathlib import Path
from typing import Any

import duel
from our_epoch import train_epoch

LEAK = 1e-3
"""Nats a token by which a packed batch may differ from its documents: far above rounding."""


def ours(task: dict) -> dict:
    """One epoch through the parts of `hen_jax.recipes.sft`."""
    import numpy as np

    from hen_jax.data.examples import Example
    from hen_jax.data.pipeline import PipelineConfig, train_batches

    examples = [
        Example(
            np.array(one["input_ids"], np.int32),
            np.array(one["labels"]) != duel.IGNORED,
            id=str(number),
            group=str(number),
        )
        for number, one in enumerate(task["examples"])
    ]
    length = task["row_length"] if task["packing"] else max(one.length for one in examples)
    data = PipelineConfig(length, task["batch_size"], task["packing"] or "none")
    step, state, frozen, put, updates = _prepared(task, examples, data)
    batches = train_batches(examples, data)
    done = train_epoch(step, state, frozen, put, batches, updates, lambda one: int(one.mask.sum()))
    return done.timed | {
        "amount": done.counted,
        "compile_s": done.compile_s,
        "loss": _last(done.losses),
    }


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
    return step, initial_state(adapter, optimizer, 0, mesh), model.base, to_devices(mesh), updates


def rendered(model: Path) -> list[dict]:
    """Token ids and labels of all 320 records, in TRL's form."""
    from hen_jax.data import samples
    from hen_jax.data.examples import Document, encode
    from hen_jax.data.hed import hed_conversation
    from hen_jax.data.schemas import read_records
    from hen_jax.text.detect import open_chat_tokenizer

    documents = [
        Document(record.id, record.statement_id, hed_conversation(record))
        for record in read_records(samples.path("hed/hed.en.jsonl"), "hed")
    ]
    encoded = encode(documents, open_chat_tokenizer(model), max_length=1024, overlong="drop")
    return [
        {
            "input_ids": one.tokens.tolist(),
            "labels": [
                token if trains else duel.IGNORED
                for token, trains in zip(one.tokens.tolist(), one.mask.tolist(), strict=True)
            ],
        }
        for one in encoded.examples
    ]


def sides(options: argparse.Namespace) -> dict[str, duel.Side]:
    """What is run, by name."""
    examples = rendered(options.model)
    shared = {
        "model": str(options.model),
        "examples": examples,
        "precision": options.precision,
        "weights": options.weights,
        "max_updates": options.updates,
        "learning_rate": options.learning_rate,
        "rank": 16,
        "alpha": 32.0,
        "remat": options.remat,
        "logit_chunk": options.logit_chunk,
        "checkpointing": False,
    }
    mean = sum(len(one["input_ids"]) - 1 for one in examples) / len(examples)
    rows = max(1, options.records // max(1, int(options.row_length / mean)))
    packed = shared | {
        "packing": "fewest_rows", "row_length": options.row_length, "batch_size": rows,
    }  # fmt: skip
    apart = shared | {"packing": None, "row_length": 1024, "batch_size": options.records}

    def peer(task: dict) -> duel.Side:
        return duel.Side("peer_trl.py:theirs", task, options.peer_python)

    every = {
        "ours, packed": duel.Side("ours", packed),
        "ours, packed, shared prefix": duel.Side("ours", packed | {"packing": "shared_prefix"}),
        "theirs": peer(apart),
        "ours": duel.Side("ours", apart),
        "theirs, packed": peer(packed),
        "theirs, checkpointing": peer(apart | {"checkpointing": True}),
    }
    strange = set(options.only) - set(every)
    if strange:
        raise SystemExit(f"no such run: {sorted(strange)}; there are {sorted(every)}")
    return {name: side for name, side in every.items() if name in (options.only or every)}


def compare() -> None:
    """Checks that all trained the same tokens; our fastest against theirs that leaks nothing."""
    options = _arguments()
    runs = duel.meet(sides(options), options.rounds)
    counts = {name: {run["amount"] for run in some} for name, some in runs.items()}
    if not options.updates and len(set.union(*counts.values())) != 1:
        raise SystemExit(f"not the same tokens were trained: {counts}")
    for run in (run for some in runs.values() for run in some):
        run["trained/s"] = duel.speeds([run])[0]
    apart = {name: some for name, some in runs.items() if some[0].get("leak", 0.0) < LEAK}
    best = duel.fastest(apart, "theirs")
    duel.report(runs, best, options.out, show=("trained/s", "compile_s", "loss", "leak"))
    print(f"the verdict is of {duel.fastest(runs, 'ours')!r} against {best!r}")


def _arguments() -> argparse.Namespace:
    parser = duel.arguments(__doc__, rounds=1)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--weights", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--records", type=int, default=8, help="records per update")
    parser.add_argument("--row-length", type=int, default=256, help="of packed rows")
    parser.add_argument("--remat", choices=("none", "dots", "block"), default="dots", help="ours")
    parser.add_argument("--logit-chunk", type=int, default=64, help="ours")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--updates", type=int, default=0, help="fewer than an epoch, for a look")
    parser.add_argument("--only", nargs="*", default=[], help="of the runs, by name")
    return parser.parse_args()


def _last(losses: list[float]) -> float:
    """The mean over the last quarter of the updates."""
    last = losses[-max(1, len(losses) // 4) :]
    return sum(last) / len(last)


if __name__ == "__main__":
    duel.main(compare, ours)
