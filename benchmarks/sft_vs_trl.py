"""Trained tokens per second of LoRA SFT, ours against TRL + PEFT, in one run on one machine.

    python benchmarks/sft_vs_trl.py --model DIR --out sft.json

One epoch of the shipped English HED set (320 records), rendered once, here: both sides get the same
token ids and the same labels, the same LoRA (rank 16 on all linear layers), AdamW, learning rates
and records per update. Every measurement is a fresh process, ours and theirs in turn: ours in this
interpreter, theirs in `--peer-python` (torch, transformers, peft, trl). Theirs runs with and
without gradient checkpointing (on is TRL's default) and with packing, ours also with packed rows
that hold the records' common prefix once, and so more records per update; the verdict is our
fastest against their fastest. Their packing counts only where the loss of a packed batch is that of
its documents alone, which is measured (`leak`, nats a token). bfloat16 is TRL's default there too:
float32 weights under autocast, or bfloat16 weights (`--weights`).

Seconds are those of the epoch; compilation (ours) is told apart. A trained token is a target that
counts in the loss. CPU seconds of both are told as well: unlike the clock, they hardly see what
else runs on the machine (but torch's threads spin while they wait for a core that is taken).

The work of an epoch, whoever does it, is

    n (4 P + 6 A) + 4 m V D   float operations

for n tokens, of which m train, P parameters in the blocks' matrices, A in the adapter, V D in the
unembedding: 2 per parameter and token forward, 2 for the gradient of the activations, 2 more for
that of a trained parameter. Padding, attention and recomputation count for nothing. The share of
the matmul rate is this work per second over the fastest float32 [1024, 576] x [576, 1536] of either
library in this run.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path

from measure import IGNORED, in_child

LEAK = 1e-3
"""Nats a token by which a packed batch may differ from its documents: far above rounding."""


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
                token if trains else IGNORED
                for token, trains in zip(one.tokens.tolist(), one.mask.tolist(), strict=True)
            ],
        }
        for one in encoded.examples
    ]


def tasks(options: argparse.Namespace, examples: list[dict]) -> dict[str, dict]:
    """What is run, by name; `records` is how many records one row holds where rows are packed."""
    shared = {
        "model": str(options.model),
        "examples": examples,
        "precision": options.precision,
        "weights": options.weights,
        "max_updates": options.updates,
        "learning_rate": options.learning_rate,
        "rank": 16,
        "alpha": 32.0,
    }
    mean = sum(len(one["input_ids"]) - 1 for one in examples) / len(examples)
    per_row = max(1, int(options.row_length / mean))
    rows = max(1, options.records // per_row)
    packed = {"packing": "fewest_rows", "row_length": options.row_length, "batch_size": rows}
    apart = {"packing": None, "row_length": 1024, "batch_size": options.records}
    ours = {"remat": options.remat, "logit_chunk": options.logit_chunk}
    return {
        "ours, packed": shared | packed | ours,
        "ours, packed, shared prefix": shared | packed | ours | {"packing": "shared_prefix"},
        "theirs": shared | apart | {"checkpointing": False},
        "ours": shared | apart | ours,
        "theirs, packed": shared | packed | {"checkpointing": False},
        "theirs, checkpointing": shared | apart | {"checkpointing": True},
    }


def summarised(name: str, runs: list[dict], rate: float, shape: dict) -> dict:
    """One row of the table: medians over the rounds."""
    speed = statistics.median(run["trained"] / run["seconds"] for run in runs)
    work = [
        run["tokens"] * (4 * shape["block_matrices"] + 6 * shape["adapter"])
        + 4 * run["trained"] * shape["unembedding"]
        for run in runs
    ]
    last = runs[0]["losses"][-max(1, len(runs[0]["losses"]) // 4) :]
    return {
        "name": name,
        "trained_per_s": speed,
        "trained_per_cpu_s": statistics.median(r["trained"] / r["cpu_seconds"] for r in runs),
        "peak_gb": max(run["peak_bytes"] for run in runs) / 1e9,
        "compile_s": statistics.median(run["compile_s"] for run in runs),
        "final_loss": statistics.mean(last),
        "share": statistics.median(
            w / run["seconds"] / rate for w, run in zip(work, runs, strict=True)
        ),
        "trained": runs[0]["trained"],
        "leak": max(run.get("leak", 0.0) for run in runs),
        "load_before": [run["load_before"] for run in runs],
        "seconds": [run["seconds"] for run in runs],
        "cpu_seconds": [run["cpu_seconds"] for run in runs],
    }


def verdict(rows: list[dict]) -> dict:
    """Our fastest against their fastest that keeps documents apart."""
    ours = [row for row in rows if row["name"].startswith("ours")]
    theirs = [row for row in rows if row not in ours and row["leak"] < LEAK]
    mine, other = (max(side, key=lambda row: row["trained_per_s"]) for side in (ours, theirs))
    return {
        "ours": mine["name"],
        "theirs": other["name"],
        "speed": mine["trained_per_s"] / other["trained_per_s"],
        "speed_by_cpu_seconds": mine["trained_per_cpu_s"] / other["trained_per_cpu_s"],
        "peak": mine["peak_gb"] / other["peak_gb"],
    }


def show(result: dict) -> None:
    print(
        f"{'':<27} {'trained/s':>9} {'per CPU s':>9} {'peak GB':>8} {'compile':>8} "
        f"{'loss':>6} {'matmul':>7} {'trained':>8} {'leak':>8}"
    )
    for row in result["rows"]:
        print(
            f"{row['name']:<27} {row['trained_per_s']:>9.2f} {row['trained_per_cpu_s']:>9.2f} "
            f"{row['peak_gb']:>8.2f} {row['compile_s']:>6.1f} s {row['final_loss']:>6.3f} "
            f"{row['share']:>7.1%} {row['trained']:>8} {row['leak']:>8.1e}"
        )
    found = result["verdict"]
    print(
        f"{found['ours']} / {found['theirs']}: {found['speed']:.2f} x trained tokens per second "
        f"(target >= 2.0; by CPU seconds {found['speed_by_cpu_seconds']:.2f}), "
        f"{found['peak']:.2f} x peak memory (target <= 1.0)"
    )


def compare(options: argparse.Namespace) -> dict:
    """Runs every task `rounds` times, in turn, and checks that all trained the same tokens."""
    examples = rendered(options.model)
    here = Path(__file__).resolve()
    ours = [sys.executable, str(here.with_name("ours_sft.py"))]
    theirs = [options.peer_python, str(here.with_name("peer_trl.py"))]
    todo = tasks(options, examples)
    strange = set(options.only) - set(todo)
    if strange:
        raise SystemExit(f"no such run: {sorted(strange)}; there are {sorted(todo)}")
    todo = {name: task for name, task in todo.items() if name in (options.only or todo)}
    runs: dict[str, list[dict]] = {name: [] for name in todo}
    for _ in range(options.rounds):
        for name, task in todo.items():
            runs[name].append(in_child(ours if name.startswith("ours") else theirs, task))
            print(f"{name}: {runs[name][-1]['seconds']:.0f} s", flush=True)
    counts = {name: [run["trained"] for run in some] for name, some in runs.items()}
    if not options.updates and len({count for some in counts.values() for count in some}) != 1:
        raise SystemExit(f"not the same tokens were trained: {counts}")
    every = [run for some in runs.values() for run in some]
    rate = max(run["matmul_rate"] for run in every)
    ours_first, theirs_first = (
        next(some[0] for name, some in runs.items() if name.startswith(side))
        for side in ("ours", "theirs")
    )
    rows = [summarised(name, some, rate, ours_first) for name, some in runs.items()]
    settings = {
        name: {k: v for k, v in task.items() if k != "examples"} for name, task in todo.items()
    }
    return {
        "cores": os.cpu_count(),
        "records": len(examples),
        "matmul_rate": rate,
        "verdict": verdict(rows),
        "rows": rows,
        "settings": settings,
        "versions": ours_first["versions"] | theirs_first["versions"],
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="LoRA SFT: ours against TRL + PEFT.")
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--peer-python", default=".venv-interop/bin/python")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--weights", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--records", type=int, default=8, help="records per update")
    parser.add_argument("--row-length", type=int, default=256, help="of packed rows")
    parser.add_argument("--remat", choices=("none", "dots", "block"), default="dots", help="ours")
    parser.add_argument("--logit-chunk", type=int, default=64, help="ours")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--updates", type=int, default=0, help="fewer than an epoch, for a look")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="of the runs, by name")
    parser.add_argument("--out", type=Path, default=Path("sft_vs_trl.json"))
    return parser.parse_args()


def main() -> None:
    from hen_jax.core.files import write_json

    options = arguments()
    result = compare(options)
    show(result)
    write_json(options.out, result)


if __name__ == "__main__":
    main()
