"""Reward models on real preferences: pairs per second, memory and accuracy beside TRL with PEFT.

    python benchmarks/reward_vs_trl.py --model models/smollm2-135m --pairs-file hh_harmless.jsonl.gz
    python benchmarks/reward_vs_trl.py --model models/smollm2-135m --pairs-file ... --work score

`--work train` is an epoch of a LoRA reward model (rank 16 on all linear layers, Bradley-Terry, no
centring) in float32 and its accuracy on held-out prompts, with a 95 % interval; `--work score` is
scoring both sides of the held-out pairs, ragged texts, with the model as it begins. Pairs come from
a file of the HH-RLHF form, are rendered and divided by prompt once, here: both sides get the same
token ids, learning rate, pairs per update and epochs; heads and adapters begin with draws of their
own. Ours lays a prompt once for both replies. Theirs trains with batches of 8 and, to pad less, of
4 and 2 that are accumulated, and scores by transformers' sequence classification in batches of 8
sorted by length and of 1, without checkpointing, which would cost it speed.
"""

import argparse
import hashlib
import time
from pathlib import Path
from typing import Any

import duel
import numpy as np
from our_epoch import train_epoch


def ours(task: dict) -> dict:
    """An epoch through the parts of `hen_jax.recipes.reward`, or the scores of `hen score`."""
    return _scores(task) if task["work"] == "score" else _epoch(task)


def _epoch(task: dict) -> dict:
    import jax

    from hen_jax.core.mesh import MeshConfig, make_mesh
    from hen_jax.data.comparison_batches import (
        ComparisonBounds,
        ComparisonConfig,
        Comparisons,
        train_comparisons,
    )
    from hen_jax.data.comparisons import reach_of
    from hen_jax.io import hf
    from hen_jax.models.config import Execution, LoraConfig
    from hen_jax.runs.earlier import trainable_and_frozen
    from hen_jax.runs.model import open_model, with_score_head
    from hen_jax.steps.reward import RewardConfig, reward_loss
    from hen_jax.steps.update import update_step
    from hen_jax.training.optimizers import OptimizerConfig, make_optimizer, make_schedule
    from hen_jax.training.placement import initial_state, to_devices

    mesh, size = make_mesh(MeshConfig()), task["pairs_per_update"]
    lora, execution = LoraConfig(task["rank"], task["alpha"]), Execution("float32", task["remat"])
    model = open_model(
        Path(task["model"]),
        mesh,
        lora=lora,
        execution=execution,
        dtype="float32",
        config=with_score_head(hf.read_config(Path(task["model"]))),
    )
    parts = trainable_and_frozen(model, lora, execution, seed=0)
    rows = [_row(number, one) for number, one in enumerate(task["pairs"])]
    updates = task["epochs"] * len(rows) // size
    longest = -(-max(row.length for row in rows) // 32) * 32
    bounds = ComparisonBounds(longest, 2, reach_of(rows))
    settings = OptimizerConfig(task["learning_rate"], schedule="constant", warmup=0.0)
    optimizer = make_optimizer(settings, make_schedule(settings, updates))
    loss = reward_loss(model.graphdef, 2, RewardConfig(centring=0.0), bounds.reach)
    step = jax.jit(update_step(loss, optimizer, task["microbatches"]), donate_argnums=0)
    state, put = initial_state(parts.trainable, optimizer, 0, mesh), to_devices(mesh)
    batches = train_comparisons(
        Comparisons((rows,)), ComparisonConfig(row_length=longest, batch_size=size), bounds
    )
    done = train_epoch(step, state, parts.frozen, put, batches, updates)
    peak = duel.peak_bytes()  # before the held-out pairs
    return done.timed | {
        "peak_bytes": peak,
        "amount": task["epochs"] * len(task["pairs"]),
        "compile_s": done.compile_s,
        "loss": float(np.mean(done.losses[-8:])),
        "right": _right(model, done.state.params, parts.frozen, task["held_out"]),
    }


def _right(model: Any, params: Any, frozen: Any, pairs: list[dict]) -> list[float]:
    """Of each held-out pair 1 where the chosen side scores higher, one half where they tie."""
    import jax

    from hen_jax.data.comparisons import compared_batch, reach_of
    from hen_jax.steps.reward import row_of_scores

    rows = [_row(number, one) for number, one in enumerate(pairs)]
    longest = -(-max(row.length for row in rows) // 32) * 32
    reach = reach_of(rows)

    @jax.jit
    def scores(params: Any, frozen: Any, batch: Any) -> Any:
        return row_of_scores(model.graphdef, 2, params, frozen, batch, reach)

    found = []
    for start in range(0, len(rows), 8):
        batch = compared_batch([*rows[start : start + 8], *[None] * 8][:8], longest, 2)
        chosen, rejected = np.asarray(scores(params, frozen, batch)).T
        found += (0.5 * (1 + np.sign(chosen - rejected))).tolist()
    return found[: len(rows)]


def _scores(task: dict) -> dict:
    from hen_jax.core.mesh import MeshConfig, make_mesh
    from hen_jax.io import hf
    from hen_jax.models.config import Execution
    from hen_jax.runs.adapted import open_adapted
    from hen_jax.runs.model import with_score_head
    from hen_jax.runs.scored import score_documents

    documents = [
        np.asarray(one[side], np.int32)
        for one in task["held_out"]
        for side in ("chosen_ids", "rejected_ids")
    ]
    run = Execution(compute_dtype="float32", remat="none")
    folder, mesh = Path(task["model"]), make_mesh(MeshConfig())
    reward = open_adapted(folder, None, with_score_head(hf.read_config(folder)), mesh, run)
    start = time.perf_counter()
    score_documents(reward, documents)
    warm = time.perf_counter() - start
    return duel.timed(lambda: score_documents(reward, documents), task["repeats"]) | {
        "amount": sum(map(len, documents)),
        "first_s": warm,
    }


def _row(number: int, pair: dict) -> Any:
    """A pair of token ids as a row."""
    from hen_jax.data.comparisons import Compared, common_start

    documents = tuple(np.asarray(pair[side], np.int32) for side in ("chosen_ids", "rejected_ids"))
    wins = np.asarray([[0, 1], [0, 0]], np.float32)
    none = np.zeros_like(wins)
    name = str(number)
    return Compared(name, name, "", documents, common_start(documents), wins, none, none)


def rendered(options: argparse.Namespace) -> tuple[list[dict], list[dict]]:
    """Token ids of the pairs that train and of those held out, by a hash of their prompt."""
    from hen_jax.data.comparisons import render_comparisons
    from hen_jax.data.schemas import check_records, pairs_of
    from hen_jax.text.detect import open_chat_tokenizer

    read = check_records(options.pairs_file, "preference")
    for problem in read.problems:
        print(f"left out: {problem}")
    pairs = [pair for one in read.records for pair in pairs_of("preference")(one)]
    rows = render_comparisons(
        pairs, open_chat_tokenizer(options.model), row_length=options.row_length
    ).compared
    rows = [one for one in rows if len(one.documents) == 2]
    rows.sort(key=lambda one: hashlib.sha256(str(one.group).encode()).digest())
    ids = [
        {
            "chosen_ids": one.documents[one.judged[0].chosen].tolist(),
            "rejected_ids": one.documents[one.judged[0].rejected].tolist(),
        }
        for one in rows
    ]
    held = options.held_out
    return ids[held : held + options.pairs], ids[:held]


def compare() -> None:
    """Our fastest against their fastest."""
    options = _arguments()
    pairs, held = rendered(options)
    task = {
        "work": options.work,
        "model": str(options.model),
        "pairs": pairs,
        "held_out": held,
        "epochs": options.epochs,
        "pairs_per_update": options.pairs_per_update,
        "learning_rate": options.learning_rate,
        "rank": 16,
        "alpha": 32.0,
        "remat": options.remat,
        "microbatches": options.microbatches,
        "at_once": options.pairs_per_update,
        "repeats": options.repeats,
    }

    def peer(at_once: int) -> duel.Side:
        return duel.Side(
            "peer_trl_reward.py:theirs", task | {"at_once": at_once}, options.peer_python
        )

    at_once = (1, 8) if options.work == "score" else (options.pairs_per_update, 2, 4)
    every = {"ours": duel.Side("ours", task)}
    every |= {f"theirs, {number} at once": peer(number) for number in at_once}
    chosen = {name: side for name, side in every.items() if name in (options.only or every)}
    sizes = [len(one[side]) for one in pairs + held for side in one]
    print(f"{len(pairs)} pairs train, {len(held)} held out, {np.mean(sizes):.0f} tokens a side")
    runs = duel.meet(chosen, options.rounds)
    best = duel.fastest(runs, "theirs") if len(chosen) > 1 else "ours"
    for some in runs.values():
        for run in some:
            if "right" in run:
                run["accuracy"] = float(np.mean(run["right"]))
    shown = ("first_s",) if options.work == "score" else ("compile_s", "loss", "accuracy")
    duel.report(runs, best, options.out, show=shown)
    if options.work == "train":
        for name, some in runs.items():
            right = np.asarray([run["right"] for run in some]).mean(axis=0)
            other = np.asarray([run["right"] for run in runs["ours"]]).mean(axis=0)
            print(f"{name}: {_interval(right)}; ours less it: {_interval(other - right)}")


def _interval(values: np.ndarray) -> str:
    draws = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), (0.025, 0.975))
    return f"{values.mean():.3f} (95 % {low:.3f} to {high:.3f})"


def _arguments() -> argparse.Namespace:
    parser = duel.arguments(__doc__, rounds=1)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--pairs-file", type=Path, required=True, help="of the HH-RLHF form")
    parser.add_argument("--work", choices=("train", "score"), default="train")
    parser.add_argument("--pairs", type=int, default=256, help="that train")
    parser.add_argument("--held-out", type=int, default=400, help="pairs that are only asked")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--row-length", type=int, default=384, help="the longest row of a pair")
    parser.add_argument("--pairs-per-update", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--remat", choices=("none", "dots", "block"), default="dots", help="ours")
    parser.add_argument("--microbatches", type=int, default=1, help="ours")
    parser.add_argument("--repeats", type=int, default=1, help="of --work score")
    parser.add_argument("--only", nargs="*", default=[], help="of the runs, by name")
    return parser.parse_args()


if __name__ == "__main__":
    duel.main(compare, ours)
