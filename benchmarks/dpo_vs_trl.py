"""Preference pairs per second of LoRA DPO, ours against TRL's DPOTrainer with PEFT.

    python benchmarks/dpo_vs_trl.py --model models/smollm2-135m

One epoch of shipped steered pairs, turn by turn, whose prompts have 200 to 400 tokens, rendered
once, here: both sides get the same token ids, the same LoRA (rank 16 on all linear layers), AdamW,
learning rate and pairs per update, and the base as reference. Ours lays each prompt once for its
two replies; "unshared" lays it twice, as theirs does. Theirs runs with batches of 8 and, to pad
less, of 2 and 1 that are accumulated, with the reference's log-probabilities in the step or
beforehand (the seconds of which count), without gradient checkpointing, which would cost it speed;
`padding_free` is not there in this version of TRL (it warns and pads). The first loss is ln 2 on
both sides, and what it is after the same updates is told.

Seconds are those of the epoch; compilation (ours) is told apart.
"""

import argparse
from pathlib import Path
from typing import Any

import duel
from our_epoch import train_epoch

PROMPTS = range(200, 401)


def ours(task: dict) -> dict:
    """One epoch through the parts of `hen_jax.recipes.preference`."""
    done = train_epoch(*_prepared(task))
    memory = done.step.memory_analysis()
    return done.timed | {
        "amount": len(task["pairs"]),
        "compile_s": done.compile_s,
        "first": done.losses[0],
        "loss": done.losses[-1],
        "temporary_gb": memory.temp_size_in_bytes / 1e9,
    }


def _prepared(task: dict) -> tuple:
    """The jitted step, its state, the frozen tree, the batch's way to the device, the batches."""
    import jax

    from hen_jax.core.mesh import MeshConfig, make_mesh
    from hen_jax.data.comparison_batches import ComparisonConfig, Comparisons
    from hen_jax.data.preference_batches import preference_bounds, train_preferences
    from hen_jax.models.config import Execution, LoraConfig
    from hen_jax.models.decoder import Decoder
    from hen_jax.runs.model import open_model
    from hen_jax.steps.preference import BASE, REFERENCE, PreferencePlan, preference_loss
    from hen_jax.steps.preference_config import PreferenceConfig
    from hen_jax.steps.update import update_step
    from hen_jax.training.optimizers import OptimizerConfig, make_optimizer, make_schedule
    from hen_jax.training.placement import initial_adapter, initial_state, to_devices

    mesh = make_mesh(MeshConfig())
    lora = LoraConfig(task["rank"], task["alpha"])
    execution = Execution("float32", task["remat"])
    model = open_model(Path(task["model"]), mesh, lora=lora, execution=execution, dtype="float32")
    adapter = initial_adapter(
        lambda key: Decoder(key, model.config, lora, execution), model.shardings, seed=0
    )
    rows = [_row(number, one, shared=task["shared"]) for number, one in enumerate(task["pairs"])]
    size = task["pairs_per_update"]
    bounds = preference_bounds(rows, shared=task["shared"], mismatches=False)
    data = ComparisonConfig(batch_size=size, shared_prompts=task["shared"])
    numbers = {row: number for number, row in enumerate(rows)}
    settings = OptimizerConfig(task["learning_rate"], schedule="constant", warmup=0.0)
    optimizer = make_optimizer(settings, make_schedule(settings, len(rows) // size))
    config = PreferenceConfig(beta=task["beta"])
    loss = preference_loss(PreferencePlan(model.graphdef, bounds, config, task["logit_chunk"]))
    frozen = {BASE: model.base, REFERENCE: jax.tree.map(lambda leaf: leaf.copy(), adapter)}
    step = jax.jit(update_step(loss, optimizer, task["microbatches"]), donate_argnums=0)
    state = initial_state(adapter, optimizer, 0, mesh)
    batches = train_preferences(Comparisons((rows,)), data, bounds, numbers)
    return step, state, frozen, to_devices(mesh), batches, len(rows) // size


def _row(number: int, pair: dict, *, shared: bool) -> Any:
    """A pair of token ids as a row."""
    import numpy as np

    from hen_jax.data.comparisons import Compared

    prompt = np.asarray(pair["prompt_ids"], np.int32)
    whole = [
        np.r_[prompt, np.asarray(pair[side], np.int32)] for side in ("chosen_ids", "rejected_ids")
    ]
    wins = np.asarray([[0, 1], [0, 0]], np.float32)
    none = np.zeros_like(wins)
    weights = [np.r_[np.zeros(len(prompt) - 1), np.ones(len(one) - len(prompt))] for one in whole]
    return Compared(
        str(number),
        str(number),
        "",
        tuple(one[:-1] for one in whole),
        len(prompt) - 1 if shared else 0,
        wins,
        none,
        none,
        targets=tuple(one[1:] for one in whole),
        weights=tuple(one.astype(np.float32) for one in weights),
        marks=np.eye(2, dtype=np.float32),
    )


def rendered(model: Path, count: int) -> list[dict]:
    """Token ids of that many pairs, in TRL's form."""
    from hen_jax.data import samples
    from hen_jax.data.comparisons import turn_pairs
    from hen_jax.data.continuations import continuations
    from hen_jax.data.schemas import read_pairs
    from hen_jax.text.detect import open_chat_tokenizer

    pairs = [
        turn
        for context in ("distress", "career", "learning", "writing")
        for pair in read_pairs(samples.path(f"eea/{context}.jsonl"), "steered")
        for turn in turn_pairs(pair)
    ]
    rows = continuations(pairs, open_chat_tokenizer(model), row_length=2048).compared
    found = []
    for row in rows:
        start = row.prefix + 1
        if start in PROMPTS and len(row.documents) == 2:
            chosen, rejected = (
                [*document[start:].tolist(), int(target[-1])]
                for document, target in zip(row.documents, row.targets, strict=True)
            )
            prompt = row.documents[0][:start].tolist()
            found.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    step = max(1, len(found) // count)
    return found[::step][:count]


def sides(options: argparse.Namespace) -> dict[str, duel.Side]:
    """What is run, by name."""
    task = {
        "model": str(options.model),
        "pairs": rendered(options.model, options.pairs),
        "pairs_per_update": options.pairs_per_update,
        "learning_rate": 1e-5,
        "beta": 0.1,
        "rank": 16,
        "alpha": 32.0,
        "remat": options.remat,
        "logit_chunk": 64,
        "microbatches": options.microbatches,
        "shared": True,
        "checkpointing": False,
        "precompute": False,
        "at_once": options.pairs_per_update,
    }

    def peer(**changes: Any) -> duel.Side:
        return duel.Side("peer_trl_dpo.py:theirs", task | changes, options.peer_python)

    every = {
        "ours": duel.Side("ours", task),
        "theirs": peer(),
        "theirs, 2 at once": peer(at_once=2),
        "theirs, 1 at once, ref first": peer(at_once=1, precompute=True),
        "theirs, 2 at once, ref first": peer(at_once=2, precompute=True),
        "ours, unshared": duel.Side("ours", task | {"shared": False}),
    }
    strange = set(options.only) - set(every)
    if strange:
        raise SystemExit(f"no such run: {sorted(strange)}; there are {sorted(every)}")
    return {name: side for name, side in every.items() if name in (options.only or every)}


def compare() -> None:
    """Our fastest against their fastest."""
    options = _arguments()
    contenders = sides(options)
    pairs = contenders["ours"].task["pairs"] if "ours" in contenders else []
    if pairs:
        sizes = {name: sum(len(one[name]) for one in pairs) / len(pairs) for name in pairs[0]}
        print(f"{len(pairs)} pairs, mean tokens: {sizes}")
    runs = duel.meet(contenders, options.rounds)
    best = duel.fastest(runs, "theirs")
    duel.report(runs, best, options.out, show=("compile_s", "first", "loss"))
    print(f"the verdict is of {duel.fastest(runs, 'ours')!r} against {best!r}")


def _arguments() -> argparse.Namespace:
    parser = duel.arguments(__doc__, rounds=1)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--pairs-per-update", type=int, default=8)
    parser.add_argument("--remat", choices=("none", "dots", "block"), default="dots", help="ours")
    parser.add_argument("--microbatches", type=int, default=1, help="ours")
    parser.add_argument("--only", nargs="*", default=[], help="of the runs, by name")
    return parser.parse_args()


if __name__ == "__main__":
    duel.main(compare, ours)
