"""An exact meta-gradient through LoRA training: ours against PyTorch, in one run on one machine.

    python benchmarks/meta_vs_torch.py --model DIR --out meta.json

The loop of MAML on SmolLM2-135M: two inner steps of gradient descent on an adapter (rank 16 on all
linear layers, a learnt rate per stacked tensor), each on four packed HED records, then the query
loss of four more; derivatives with respect to the start and the rates. Both sides get the same
documents, labels, frozen weights and start in float32, and the loss is the mean over the trained
tokens. PyTorch differentiates through `torch.autograd.grad(create_graph=True)`, or through
`torch.func.grad`, on the transformers model, with its eager attention or the mathematical `sdpa`
(the fused one has no second derivative). It computes the loss as we do, with logits of the trained
tokens only, and ("transformers' loss") as the model does when it is given labels, with all of them.

All records begin with the same words. Our rows lay them once (`packing="shared_prefix"`), theirs
repeat them, as packing does elsewhere; both sides also run on the other's rows, so that what comes
from the rows and what from the differentiation can be told apart.

Every measurement is a fresh process, in turn: ours in this interpreter, theirs in `--peer-python`
(torch, transformers). A round computes the meta-gradient once to warm up (compilation is told
apart) and `--repeats` times on the clock. The verdict is our fastest exact mode against their
fastest that fits in memory, and the gradients must agree. How much of our time is matrix products
is told by `products.py`.
"""

import argparse
import os
import re
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import in_child

ALPHA, RANK = 32.0, 16
AGREEMENT = 1e-3
"""The relative error of the whole meta-gradient that rounding in float32 may leave."""


def packed(options: argparse.Namespace, packing: str, row_length: int) -> list[dict]:
    """A support batch per inner step and a query batch of HED records, packed; lists of numbers."""
    from hen_jax.data import samples
    from hen_jax.data.examples import Document, encode
    from hen_jax.data.hed import hed_conversation
    from hen_jax.data.packing import pack, pack_row, stack_rows
    from hen_jax.data.prefixes import find_prefixes
    from hen_jax.data.schemas import read_records
    from hen_jax.text.detect import open_chat_tokenizer

    documents = [
        Document(record.id, record.statement_id, hed_conversation(record))
        for record in read_records(samples.path("hed/hed.en.jsonl"), "hed")
    ]
    words = open_chat_tokenizer(options.model)
    examples = encode(documents, words, max_length=row_length, overlong="drop").examples
    prefix = int(find_prefixes(examples).prefix.max()) if packing == "shared_prefix" else 0
    batches = []
    for first in range(0, (options.inner_steps + 1) * options.records, options.records):
        some = examples[first : first + options.records]
        rows = pack([one.length for one in some], row_length, packing, prefix)
        batches.append(
            stack_rows([pack_row([some[i] for i in row], row_length, prefix) for row in rows])
        )
    most = max(len(batch.tokens) for batch in batches)
    return [
        {
            name: np.pad(leaf, [(0, most - len(leaf)), (0, 0)]).tolist()
            for name, leaf in batch._asdict().items()
            if leaf is not None
        }
        for batch in batches
    ]


OURS = {
    "products kept": {"mode": "mixflow", "keep": True},
    "mixflow": {"mode": "mixflow", "keep": False},
    "unroll": {"mode": "unroll", "keep": False},
}
OTHER_ROWS, WHOLE = ", on the other's rows", ", transformers' loss"
AUTOGRAD = {
    "how": "autograd",
    "attention": "sdpa",
    "checkpointing": False,
    "every_logit": False,
}
FUNC = AUTOGRAD | {"how": "func"}
THEIRS = {
    "autograd, eager": AUTOGRAD | {"attention": "eager"},
    "autograd, sdpa": AUTOGRAD,
    "autograd, sdpa, checkpointed": AUTOGRAD | {"checkpointing": True},
    "func, sdpa": FUNC,
    f"autograd, sdpa{WHOLE}": AUTOGRAD | {"every_logit": True},
    f"func, sdpa{WHOLE}": FUNC | {"every_logit": True},
}


def tasks(options: argparse.Namespace) -> dict[str, dict]:
    """What is run, by name."""
    plain = packed(options, "fewest_rows", options.row_length)
    shared = packed(options, "shared_prefix", options.shared_row_length)
    given = {
        "model": str(options.model),
        "rank": RANK,
        "alpha": ALPHA,
        "rate": options.rate,
        "repeats": options.repeats,
        "seed": 0,
        "remat": options.remat,
        "microbatches": options.microbatches,
    }
    every = {}
    for side, ways, own, other in (
        ("ours", OURS, shared, plain),
        ("theirs", THEIRS, plain, shared),
    ):
        for name, how in ways.items():
            every[f"{side}, {name}"] = given | how | {"batches": own}
            every[f"{side}, {name}{OTHER_ROWS}"] = given | how | {"batches": other}
    chosen = {name: task for name, task in every.items() if re.search(options.only, name)}
    if not any(name.startswith("ours") for name in chosen):
        raise SystemExit(f"--only {options.only!r} matches none of ours: {', '.join(every)}")
    return chosen


def agreement(first: Path, second: Path) -> dict[str, float]:
    """How far two meta-gradients of the same point lie apart, all leaves as one vector."""
    one, other = (np.load(path) for path in (first, second))
    if set(one) != set(other):
        raise SystemExit(f"not the same gradients: {sorted(set(one) ^ set(other))}")
    x, y = (
        np.concatenate([saved[name].ravel() for name in sorted(saved)]).astype(np.float64)
        for saved in (one, other)
    )
    return {
        "relative_error": float(np.linalg.norm(x - y) / np.linalg.norm(y)),
        "cosine": float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)),
        "rates_relative_error": max(
            float(abs(one[name] - other[name]) / abs(other[name]))
            for name in one
            if name.startswith("rate")
        ),
    }


def compare(options: argparse.Namespace) -> dict:
    """Runs every task `rounds` times, in turn, and compares speed, peak memory and gradients."""
    here = Path(__file__).resolve()
    command = {
        "ours": [sys.executable, str(here.with_name("ours_meta.py"))],
        "theirs": [options.peer_python, str(here.with_name("peer_meta_torch.py"))],
    }
    if options.large_pages:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"  # read by each child as it starts
    todo = tasks(options)
    runs: dict[str, list[dict]] = {name: [] for name in todo}
    with tempfile.TemporaryDirectory() as folder:
        where = {name: Path(folder, f"{number}.npz") for number, name in enumerate(todo)}
        for _ in range(options.rounds):
            for name, task in todo.items():
                side = command[name.split(",")[0]]
                task = task | {"gradients": str(where[name])}
                runs[name].append(in_child(side, task, may_not_fit=True))
                print(f"{name}: {runs[name][-1].get('seconds', 'does not fit')}", flush=True)
        fitting = {name: some for name, some in runs.items() if all(some)}
        rows = [summarised(name, some) for name, some in fitting.items()]
        # Where none of theirs fits in memory, our own modes are compared.
        reference = (fastest(rows, "theirs", other=False) or rows[0])["name"]
        found = {
            row["name"]: agreement(where[row["name"]], where[reference])
            for row in rows
            if row["name"] != reference
        }
    return {
        "cores": os.cpu_count(),
        "batches": {name: shape_of(task["batches"]) for name, task in todo.items()},
        "rows": rows,
        "did_not_fit": sorted(set(runs) - set(fitting)),
        "verdict": verdict(rows, fitting),
        "agreement": found,
        "settings": {
            name: {k: v for k, v in task.items() if k != "batches"} for name, task in todo.items()
        },
        "versions": {k: v for some in fitting.values() for k, v in some[0]["versions"].items()},
    }


def shape_of(batches: list[dict]) -> dict:
    """Rows and positions of a batch, and how many positions of each hold a token."""
    held = [int(np.count_nonzero(batch["segments"])) for batch in batches]
    return {"shape": np.array(batches[0]["tokens"]).shape, "tokens": held}


def verdict(rows: list[dict], runs: dict[str, list[dict]]) -> dict:
    """Our fastest exact mode against their fastest, on the rows of each and on the same rows."""
    ours, theirs = (fastest(rows, side, other=False) for side in ("ours", "theirs"))
    if not theirs:
        return {"ours": ours["name"], "theirs": None}
    seconds = {row["name"]: row["seconds"] for row in rows}
    found = {
        "ours": ours["name"],
        "theirs": theirs["name"],
        "speed": theirs["seconds"] / ours["seconds"],
        "speed_by_cpu_seconds": theirs["cpu_seconds"] / ours["cpu_seconds"],
        "peak": ours["peak_gb"] / theirs["peak_gb"],
        "products_flops": runs[ours["name"]][0]["products_flops"],
        "products_seconds": min(run["products_seconds"] for run in runs[ours["name"]]),
    }
    whole = [row["seconds"] for row in rows if row["name"].endswith(WHOLE)]
    if whole:
        found["speed_over_transformers_loss"] = min(whole) / ours["seconds"]
    if {"ours, mixflow", "ours, unroll"} <= set(seconds):
        found["mixflow_over_unroll"] = seconds["ours, unroll"] / seconds["ours, mixflow"]
    ours_there, theirs_there = (fastest(rows, side, other=True) for side in ("ours", "theirs"))
    if ours_there:
        found["speed_on_their_rows"] = theirs["seconds"] / ours_there["seconds"]
    if theirs_there:
        found["speed_on_our_rows"] = theirs_there["seconds"] / ours["seconds"]
    return found


def summarised(name: str, runs: list[dict]) -> dict:
    """One row of the table: medians over all repeats of all rounds."""
    return {
        "name": name,
        "seconds": statistics.median(s for run in runs for s in run["seconds"]),
        "cpu_seconds": statistics.median(s for run in runs for s in run["cpu_seconds"]),
        "peak_gb": max(run["peak_bytes"] for run in runs) / 1e9,
        "compile_s": statistics.median(run["compile_s"] for run in runs),
        "value": runs[0]["value"],
        "load_before": [run["load_before"] for run in runs],
        "all_seconds": [run["seconds"] for run in runs],
    }


def fastest(rows: list[dict], side: str, *, other: bool) -> dict:
    """The fastest row of a side, on its own rows or on the other's; `{}` where none was run."""
    mine = [
        row
        for row in rows
        if row["name"].startswith(side) and row["name"].endswith(OTHER_ROWS) is other
    ]
    return min(mine, key=lambda row: row["seconds"], default={})


def show(result: dict) -> None:
    print(f"{'':<52} {'seconds':>8} {'CPU s':>8} {'peak GB':>8} {'compile':>8} {'error':>9}")
    for row in result["rows"]:
        error = result["agreement"].get(row["name"], {"relative_error": 0.0})["relative_error"]
        print(
            f"{row['name']:<52} {row['seconds']:>8.2f} {row['cpu_seconds']:>8.2f} "
            f"{row['peak_gb']:>8.2f} {row['compile_s']:>6.1f} s {error:>9.1e}"
        )
    for name in result["did_not_fit"]:
        print(f"{name:<52} does not fit in the memory of this machine")
    found = result["verdict"]
    if found["theirs"] is None:
        return
    print(
        f"{found['ours']} / {found['theirs']}: {found['speed']:.2f} x as fast (target >= 2.0; by "
        f"CPU seconds {found['speed_by_cpu_seconds']:.2f}), {found['peak']:.2f} x peak memory "
        f"(target <= 0.5)"
    )
    for name in (
        "speed_over_transformers_loss",
        "speed_on_their_rows",
        "speed_on_our_rows",
        "mixflow_over_unroll",
    ):
        if name in found:
            print(f"{name.replace('_', ' ')}: {found[name]:.2f} x")
    print(
        f"{found['ours']}: its matrix products ({found['products_flops'] / 1e9:.0f} GFLOP) take "
        f"{found['products_seconds']:.2f} s by themselves, each kind at its best"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="An exact meta-gradient: ours against PyTorch.")
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--peer-python", default=".venv-interop/bin/python")
    parser.add_argument("--records", type=int, default=4, help="per inner step, and of the query")
    parser.add_argument("--inner-steps", type=int, default=2)
    parser.add_argument("--row-length", type=int, default=256, help="of their rows")
    parser.add_argument("--shared-row-length", type=int, default=352, help="of ours")
    parser.add_argument("--rate", type=float, default=0.05, help="of the inner steps")
    parser.add_argument("--remat", choices=("none", "dots", "block"), default="none")
    parser.add_argument("--microbatches", type=int, default=1)
    parser.add_argument("--only", default="", help="a pattern of names, one of ours at least")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("meta_vs_torch.json"))
    parser.add_argument(
        "--large-pages",
        action="store_true",
        help="glibc takes large pages from Linux for large arrays, on both sides",
    )
    return parser.parse_args()


def main() -> None:
    from hen_jax.core.files import write_json

    options = arguments()
    result = compare(options)
    show(result)
    write_json(options.out, result)
    error = max(one["relative_error"] for one in result["agreement"].values())
    if not error < AGREEMENT:
        raise SystemExit(f"the meta-gradients differ by {error:.1e}: not the same computation")


if __name__ == "__main__":
    main()
