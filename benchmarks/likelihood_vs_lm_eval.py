"""Choice items by likelihood: ours against lm-eval's Hugging Face backend, the same token ids.

    python benchmarks/likelihood_vs_lm_eval.py --model models/smollm2-135m
    python benchmarks/likelihood_vs_lm_eval.py --model models/smollm2-135m --emobench FILE FILE

The items are those of hen-bench@1, or of EmoBench's files, which you bring. Each option behind the
item's prompt is a request of `HFLM._loglikelihood_tokens`, whose ids our chat format gives: both
sides score the same tokens, end of turn included, and the benchmark ends where a log-likelihood
or a choice differs. Theirs runs at each of `--batch-sizes`; the verdict is against their fastest.

`seconds` are of one run of all items, for ours with rendering and compilation, for theirs from
token ids on. `again` is ours once more, with the programs that are there.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duel

CLOSE = 2e-3
"""Nats by which the sum of an option may differ, per token of it: float32 against float32."""


def ours(task: dict) -> dict:
    """Every item through the likelihoods of `hen evaluate`."""
    from hen_jax.measures.likelihoods import likeliest
    from hen_jax.runs.likelihood import open_likelihood

    items, likelihood = _items(task), open_likelihood(Path(task["model"]))
    kept: list[Any] = []

    def asked(rows: Sequence) -> list:
        kept[:] = likelihood(rows)
        return kept

    chosen: list[list[int | None]] = []

    def run() -> None:
        chosen.append([one.chosen for one in likeliest(items, asked)])

    found, again = duel.timed(run), duel.timed(run)
    sums = [float(value) for one in kept for value in one.sums]
    told = {"amount": task["tokens"], "sums": sums, "chosen": chosen[-1]}
    return found | told | {"again": again["seconds"][0]}


def theirs(task: dict) -> dict:
    """The same requests through lm-eval."""
    import os

    import numpy as np
    import torch
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(os.cpu_count() or 1)
    model = HFLM(
        pretrained=task["model"], dtype="float32", device="cpu", batch_size=task["batch_size"]
    )
    asked = [
        (("", ""), context, rest)
        for item in task["requests"]
        for context, rest in ((item["prompt"], option) for option in item["options"])
    ]
    answers: list[float] = []

    def run() -> None:
        told = model._loglikelihood_tokens(asked, disable_tqdm=True)
        answers[:] = [log_prob for log_prob, _ in told]

    found = duel.timed(run)
    sums, chosen = iter(answers), []
    for item in task["requests"]:
        worth = [next(sums) / len(option) for option in item["options"]]
        chosen.append(int(np.argmax(worth)))
    told = {"amount": task["tokens"], "sums": answers, "chosen": chosen}
    return found | told | {"again": found["seconds"][0]}


def _items(task: dict) -> list:
    from hen_jax.measures.bench import load_bench
    from hen_jax.measures.benchmarks.emobench import read_emobench

    if task["emobench"]:
        items = [item for path in task["emobench"] for item in read_emobench(Path(path))]
    else:
        items = [item for crossed in load_bench() for item in crossed.items()]
    count = min(task["limit"] or len(items), len(items))
    return [items[at * len(items) // count] for at in range(count)]


def requests_of(task: dict) -> list[dict]:
    """Token ids of each item's prompt and options, as our chat format writes them."""
    from hen_jax.runs.known_tokenizers import known_tokenizer
    from hen_jax.text.chat import render, render_prompt
    from hen_jax.text.conversation import Conversation, Message

    tokenizer, found = known_tokenizer(Path(task["model"])), []
    for item in _items(task):
        prompt = render_prompt(item.messages, tokenizer).tolist()
        options = []
        for text in item.options:
            whole = render(Conversation((*item.messages, Message("assistant", text))), tokenizer)
            ids, trains = whole.tokens.tolist(), whole.mask.tolist()
            if ids[: len(prompt)] != prompt or not trains[len(prompt)]:
                raise SystemExit(f"item {item.id}: its prompt is no prefix of its conversation")
            last = max(at for at, one in enumerate(trains) if one)
            options.append(ids[len(prompt) : last + 1])
        found.append({"prompt": prompt, "options": options})
    return found


def compare() -> None:
    """Ends where both do not say the same."""
    options = _arguments()
    task: dict[str, Any] = {
        "model": str(options.model),
        "emobench": list(map(str, options.emobench)),
        "limit": options.limit,
    }
    requests = requests_of(task)
    lengths = [len(one["prompt"]) + len(x) for one in requests for x in one["options"]]
    task["tokens"] = sum(lengths)
    sides = {"ours": duel.Side("ours", task)} | {
        f"theirs, batches of {size}": duel.Side(
            "theirs", task | {"requests": requests, "batch_size": size}, options.peer_python
        )
        for size in options.batch_sizes
    }
    began = time.perf_counter()
    runs = duel.meet(sides, options.rounds)
    _require_same(runs, requests)
    for run in (run for some in runs.values() for run in some):
        run["options/s"] = len(lengths) / run["seconds"][0]
    print(f"{len(requests)} items, {len(lengths)} options, {task['tokens']} tokens of prompts and "
          f"options; {time.perf_counter() - began:.0f} s in all")  # fmt: skip
    duel.report(runs, duel.fastest(runs, "theirs"), options.out, show=("options/s", "again"))


def _require_same(runs: duel.Runs, requests: Sequence[dict]) -> None:
    """Ends the benchmark where a sum or a choice differs by more than rounding does."""
    [mine, *others] = [run for some in runs.values() for run in some]
    sizes = [len(option) for item in requests for option in item["options"]]
    for run in others:
        gaps = [abs(a - b) / n for a, b, n in zip(mine["sums"], run["sums"], sizes, strict=True)]
        if max(gaps) > CLOSE:
            raise SystemExit(f"option {gaps.index(max(gaps))}: {max(gaps):.2g} nats a token apart")
    same = {tuple(run["chosen"]) for run in (mine, *others)}
    agree = min(sum(a == b for a, b in zip(mine["chosen"], one, strict=True)) for one in same)
    print(f"the same choice for {agree} of {len(requests)} items")
    if agree < 0.99 * len(requests):
        raise SystemExit("the choices differ in more than what rounding decides")
    for run in (mine, *others):
        del run["sums"], run["chosen"]


def _arguments() -> argparse.Namespace:
    parser = duel.arguments(__doc__, rounds=1)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--emobench", type=Path, nargs="*", default=[], help="its official files")
    parser.add_argument("--limit", type=int, default=0, help="items at most, for a look")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32], help="theirs")
    return parser.parse_args()


if __name__ == "__main__":
    duel.main(compare, ours, theirs)
