"""An exact meta-gradient through LoRA training: ours against PyTorch.

    python benchmarks/meta_vs_torch.py --model models/smollm2-135m --large-pages

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

A process computes the meta-gradient once to warm up (compilation is told apart) and `--repeats`
times on the clock. The verdict is our fastest exact mode against their fastest that fits in
memory, each on its own rows, and all gradients must agree.
"""

import argparse
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import duel
from meta_start import TARGETS, start

AGREEMENT = 1e-3
"""The relative error of the whole meta-gradient that rounding in float32 may leave."""

OURS = {
    "products kept": {"mode": "mixflow", "keep": True},
    "mixflow": {"mode": "mixflow", "keep": False},
    "unroll": {"mode": "unroll", "keep": False},
}
OTHER_ROWS, WHOLE = ", on the other's rows", ", transformers' loss"
AUTOGRAD = {"how": "autograd", "attention": "sdpa", "checkpointing": False, "every_logit": False}
FUNC = AUTOGRAD | {"how": "func"}
THEIRS = {
    "autograd, eager": AUTOGRAD | {"attention": "eager"},
    "autograd, sdpa": AUTOGRAD,
    "autograd, sdpa, checkpointed": AUTOGRAD | {"checkpointing": True},
    "func, sdpa": FUNC,
    f"autograd, sdpa{WHOLE}": AUTOGRAD | {"every_logit": True},
    f"func, sdpa{WHOLE}": FUNC | {"every_logit": True},
}


def ours(task: dict) -> dict:
    """The meta-gradient of the task; the gradients are written to `task["gradients"]`."""
    import jax
    import numpy as np

    step, arguments = _prepared(task)
    began = time.perf_counter()
    step = jax.jit(step).lower(*arguments).compile()
    compile_s = time.perf_counter() - began
    value, theta, rates = jax.block_until_ready(step(*arguments))
    found = duel.timed(lambda: jax.block_until_ready(step(*arguments)), task["repeats"])
    found |= {"peak_bytes": duel.peak_bytes(), "compile_s": compile_s, "value": float(value)}
    leaves = {
        f"{prefix}{name}/{side}": np.asarray(tree["blocks"][part][name][f"lora_{side}"])
        for prefix, tree in (("", theta), ("rate/", rates))
        for name, part in TARGETS.items()
        for side in ("a", "b")
    }
    np.savez(task["gradients"], **leaves)
    return found


def _prepared(task: dict) -> tuple:
    """The meta-step and its arguments: start, base, rates, support batches, query."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from hen_jax.core.mesh import MeshConfig, make_mesh
    from hen_jax.core.types import SHARED, Batch, RowLimits
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
    types = {"mask": np.float32}
    every = [
        Batch(**{name: np.array(x, types.get(name, np.int32)) for name, x in one.items()})
        for one in task["batches"]
    ]
    # The most positions that any row trains; whole chunks of them go through the vocabulary.
    capacity = int(max(batch.mask.sum(axis=1).max() for batch in every))
    rows = [row for batch in every for row in batch.segments]
    longest = max(int(np.bincount(row[row > 0]).max(initial=1)) for row in rows)
    prefix = max(int((row == SHARED).sum()) for row in rows)
    reach = RowLimits(longest, prefix, max(int(row.max()) for row in rows))
    sft = sft_loss(model.graphdef, capacity, capacity, reach)

    def step(theta: Any, base: Any, rates: Any, batches: Batch, query: Batch) -> tuple:
        scalar = mean_loss(lambda theta, _, batch: sft(theta, base, batch), task["microbatches"])
        inner = InnerLoop(scalar, descend, len(every) - 1, keep=PRODUCTS if task["keep"] else None)
        found = meta_gradient(inner, scalar, task["mode"])(theta, rates, batches, query)
        return found.value, found.theta, found.eta

    theta = _adapter(model.base["blocks"], task)
    rates = jax.tree.map(lambda _: jnp.float32(task["rate"]), theta)
    batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *every[:-1])
    return step, (theta, model.base, rates, batches, jax.tree.map(jnp.asarray, every[-1]))


def _adapter(blocks: Any, task: dict) -> dict:
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


def packed(options: argparse.Namespace, packing: str, row_length: int) -> list[dict]:
    """A support batch per inner step and a query batch of HED records, packed; lists of numbers."""
    import numpy as np

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
    tokenizer = open_chat_tokenizer(options.model)
    examples = encode(documents, tokenizer, max_length=row_length, overlong="drop").examples
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


def sides(options: argparse.Namespace, folder: str) -> dict[str, duel.Side]:
    """What is run, by name; `gradients` of each go to a file in the folder."""
    plain = packed(options, "fewest_rows", options.row_length)
    shared = packed(options, "shared_prefix", options.shared_row_length)
    given = {
        "model": str(options.model), "rank": 16, "alpha": 32.0, "rate": options.rate, "seed": 0,
        "repeats": options.repeats, "remat": options.remat, "microbatches": options.microbatches,
    }  # fmt: skip
    # With large pages, glibc asks Linux for them as a process starts.
    environ = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} if options.large_pages else {}
    torch = ("peer_meta_torch.py:theirs", options.peer_python)
    every = {}
    for own, other, ways, (call, python) in (
        (shared, plain, {f"ours, {name}": way for name, way in OURS.items()}, ("ours", None)),
        (plain, shared, {f"theirs, {name}": way for name, way in THEIRS.items()}, torch),
    ):
        for rows, ending in ((own, ""), (other, OTHER_ROWS)):
            for name, how in ways.items():
                file = {"gradients": f"{folder}/{len(every)}.npz"}
                task = given | how | {"batches": rows} | file
                side = duel.Side(call, task, environ=environ)
                every[name + ending] = side._replace(python=python or side.python)
    chosen = {name: side for name, side in every.items() if re.search(options.only, name)}
    if not any(name.startswith("ours") for name in chosen):
        raise SystemExit(f"--only {options.only!r} matches none of ours: {', '.join(every)}")
    return chosen


def error(first: str, second: str) -> float:
    """The relative error of two meta-gradients of the same point, all leaves as one vector."""
    import numpy as np

    one, other = (np.load(path) for path in (first, second))
    if set(one) != set(other):
        raise SystemExit(f"not the same gradients: {sorted(set(one) ^ set(other))}")
    x, y = (
        np.concatenate([saved[name].ravel() for name in sorted(saved)]).astype(np.float64)
        for saved in (one, other)
    )
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


def compare() -> None:
    options = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        todo = sides(options, folder)
        runs = duel.meet(todo, options.rounds, may_not_fit=True)
        own = {name: some for name, some in runs.items() if not name.endswith(OTHER_ROWS)}
        # Where none of theirs fits in memory, our own modes are compared.
        theirs_ran = any(some for name, some in own.items() if name.startswith("theirs"))
        best = duel.fastest(own, "theirs" if theirs_ran else "ours")
        where = {name: str(side.task["gradients"]) for name, side in todo.items()}
        for name, some in runs.items():
            for run in some:
                run["error"] = error(where[name], where[best])
    duel.report(runs, best, options.out, show=("compile_s", "error"))
    print(f"the verdict is of {duel.fastest(own, 'ours')!r} against {best!r}")
    worst = max(run["error"] for some in runs.values() for run in some)
    if not worst < AGREEMENT:
        raise SystemExit(f"the meta-gradients differ by {worst:.1e}: not the same computation")


def _arguments() -> argparse.Namespace:
    parser = duel.arguments(__doc__, rounds=1)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--records", type=int, default=4, help="per inner step, and of the query")
    parser.add_argument("--inner-steps", type=int, default=2)
    parser.add_argument("--row-length", type=int, default=256, help="of their rows")
    parser.add_argument("--shared-row-length", type=int, default=352, help="of ours")
    parser.add_argument("--rate", type=float, default=0.05, help="of the inner steps")
    parser.add_argument("--remat", choices=("none", "dots", "block"), default="none")
    parser.add_argument("--microbatches", type=int, default=1)
    parser.add_argument("--only", default="", help="a pattern of names, one of ours at least")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--large-pages", action="store_true", help="for large arrays, both sides")
    return parser.parse_args()


if __name__ == "__main__":
    duel.main(compare, ours)
