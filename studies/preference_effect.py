"""Does DPO make a policy prefer what fits? SmolLM2-135M, held-out crossed pairs, three folds.

    python studies/preference_effect.py --model models/smollm2-135m --out runs/preference-effect

The statements of the English HED set are dealt to three folds; each seed trains on two of them and
is tested on the third, so that no statement is on both sides. Trained are crossed pairs (statement,
role), and with `--steered` the turns of the hard steered pairs. Every reply of a crossed pair is
chosen as often as rejected: what reads replies alone is right half of the time.

The run: one epoch of cross-entropy on the chosen replies, then DPO with that as the reference. The
implicit reward `beta (log pi - log pi_ref)` is then compared with the controls: a bag of words, and
`log pi` itself of the model before DPO. Intervals are bootstraps over statements.

Two cores force this: adapters stand in the last layers only, the states
below them are computed once and looked up, and the softmax runs over the tokens that occur.
"""

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hen_jax.core.files import write_json
from hen_jax.core.types import Mean, Tree
from hen_jax.data import samples
from hen_jax.data.comparisons import Compared, turn_pairs
from hen_jax.data.continuations import continuations
from hen_jax.data.crossed import crossed_pairs, role_crossings, statement_crossings
from hen_jax.data.preference_batches import (
    PreferenceBatch,
    PreferenceBounds,
    preference_batch,
    preference_bounds,
)
from hen_jax.data.preferences import Pair
from hen_jax.data.schemas import read_pairs, read_records
from hen_jax.data.word_ranker import word_margins
from hen_jax.evaluation.preferences import estimate, pair_accuracy
from hen_jax.io import hf
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import Decoder, abstract, merge, split
from hen_jax.objectives.direct import Side
from hen_jax.steps.preference import PreferencePlan, preference_loss, wanted_shares
from hen_jax.steps.preference_config import PreferenceConfig
from hen_jax.steps.reply_scores import reply_lengths, reply_sums, whole
from hen_jax.steps.state import init_state
from hen_jax.steps.update import Loss, update_step
from hen_jax.text.detect import open_chat_tokenizer
from hen_jax.training.optimizers import OptimizerConfig, make_optimizer, make_schedule

FOLDS = 3
CONTEXTS = ("distress", "career", "learning", "writing")


class Unchanged(nnx.Module):
    """In place of the last norm: what comes below another layer is not normalised."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """As it is."""
        return x


class Data(NamedTuple):
    """One fold: rows to train and to test, their bounds and the table of states."""

    train: list[Compared]
    test: list[Compared]
    bounds: PreferenceBounds
    numbers: dict[Compared, int]
    words: np.ndarray  # [vocabulary]: ids of the tokens that occur


class Model(NamedTuple):
    """The last layers, whose embedding is the table of states."""

    graphdef: nnx.GraphDef
    base: Tree
    fresh: Any  # seed -> adapter


def fold_of(statement: str) -> int:
    return hashlib.sha256(f"preference effect\0{statement}".encode()).digest()[0] % FOLDS


def pairs_of_fold(fold: int, *, test: bool, steered: bool) -> list[Pair]:
    """Crossings are built within a side, so that none holds statements of both."""
    records = read_records(samples.path("hed/hed.en.jsonl"), "hed")
    mine = [one for one in records if (fold_of(one.statement_id) == fold) is test]
    crossings = [*statement_crossings(mine), *role_crossings(mine)]
    found = [pair for one in crossings for pair in crossed_pairs(one)]
    if steered and not test:
        for context in CONTEXTS:
            for pair in read_pairs(samples.path(f"eea/{context}.hard.jsonl"), "steered"):
                found += turn_pairs(pair)
    return found


def read_fold(folder: Path, fold: int, *, steered: bool) -> Data:
    tokenizer = open_chat_tokenizer(folder)
    train, test = (
        continuations(
            pairs_of_fold(fold, test=side, steered=steered), tokenizer, row_length=512
        ).compared
        for side in (False, True)
    )
    rows = [*train, *test]
    bounds = preference_bounds(rows, shared=True, mismatches=False)
    ids = [part for row in rows for part in (*row.documents, *row.targets)]
    numbers = {row: number for number, row in enumerate(rows)}
    return Data(train, test, bounds, numbers, np.unique(np.concatenate(ids)))


def laid(data: Data, rows: Sequence[Compared | None]) -> PreferenceBatch:
    """Rows as they are, with the tokens of the model."""
    return preference_batch(rows, None, data.bounds, data.numbers)


def batch_of(data: Data, rows: Sequence[Compared | None], reference: Any = None) -> PreferenceBatch:
    """Rows whose tokens are places in the table, and whose targets are places in `words`."""
    whole_rows = laid(data, rows)
    batch, T = whole_rows.rows.batch, data.bounds.rows.row
    places = np.maximum(whole_rows.number, 0)[:, None] * T + np.arange(T)
    targets = np.searchsorted(data.words, batch.targets).clip(max=len(data.words) - 1)
    batch = batch._replace(tokens=places.astype(np.int32), targets=targets.astype(np.int32))
    known = None if reference is None else reference[whole_rows.number]
    return whole_rows._replace(rows=whole_rows.rows._replace(batch=batch), reference=known)


def build(folder: Path, data: Data, layers: int, rank: int, size: int) -> Model:
    """The last `layers` of the model, on the states below them."""
    config = hf.read_config(folder)
    base = jax.tree.map(jnp.asarray, hf.read_params(folder, config, "float32"))
    lower = dataclasses.replace(config, layers=config.layers - layers)
    graphdef = split(abstract(lower)).graphdef
    params = base | {"blocks": jax.tree.map(lambda leaf: leaf[: lower.layers], base["blocks"])}

    @jax.jit
    def below(params: Tree, batch: Any) -> jax.Array:
        model = merge(graphdef, params)
        model.norm = Unchanged()
        return model.hidden(batch.tokens, batch.positions, batch.segments, data.bounds.rows.reach)

    rows = [*data.train, *data.test]
    states = []
    for start in range(0, len(rows), size):
        some = [*rows[start : start + size], *[None] * (start + size - len(rows))][:size]
        states.append(np.asarray(below(params, laid(data, some).rows.batch)))
    table = jnp.asarray(np.concatenate(states).reshape(-1, config.width))
    lora = LoraConfig(rank=rank, alpha=2.0 * rank)
    small = dataclasses.replace(config, layers=layers, vocab_size=len(data.words), tied_head=False)
    upper = {
        "embed": {"embedding": table},
        "blocks": jax.tree.map(lambda leaf: leaf[config.layers - layers :], base["blocks"]),
        "norm": base["norm"],
        "head": {"kernel": base["embed"]["embedding"][data.words].T},
    }
    model = split(abstract(small, lora, Execution(remat="none")))
    fresh = jax.jit(lambda key: split(Decoder(key, small, lora)).adapter)
    return Model(model.graphdef, upper, lambda seed: fresh(jax.random.key(seed)))


def imitation_loss(plan: PreferencePlan) -> Loss:
    """Cross-entropy of the chosen replies."""

    def loss(params: Tree, frozen: Tree, batch: PreferenceBatch):
        rows, bounds = batch.rows, plan.bounds.rows
        sums = whole(reply_sums(plan.scoring, bounds, rows, params, frozen))
        wanted = wanted_shares(batch, plan.config)
        lengths = reply_lengths(rows, bounds.replies)
        return Mean(-(wanted * sums).sum(), (wanted * lengths).sum()), {}

    return loss


def fitted(
    loss: Loss, data: Data, model: Model, params: Tree, options: argparse.Namespace, **run: Any
) -> tuple[Tree, list[float]]:
    """Trains for `epochs`; each batch is rows of the fold, shuffled by the seed."""
    size, random = options.prompts, np.random.default_rng(run["seed"])
    order = [
        row
        for _ in range(run["epochs"])
        for row in random.permutation(len(data.train))[: len(data.train) // size * size]
    ]
    steps = len(order) // size
    schedule = make_schedule(OptimizerConfig(run["rate"], warmup=0.1, final=0.1), steps)
    optimizer = make_optimizer(OptimizerConfig(run["rate"], warmup=0.1, final=0.1), schedule)
    step = jax.jit(update_step(loss, optimizer), donate_argnums=0)
    state, losses = init_state(params, optimizer, run["seed"]), []
    for number in range(steps):
        rows = [data.train[place] for place in order[number * size : (number + 1) * size]]
        state, metrics = step(state, model.base, batch_of(data, rows, run.get("reference")))
        losses.append(float(metrics["loss"].value))
    return state.params, losses


def scored(plan: PreferencePlan, data: Data, model: Model, params: Tree, size: int) -> np.ndarray:
    """`[rows, K, 1]` of the fold's rows, by number."""

    @jax.jit
    def sums(params: Tree, frozen: Tree, batch: PreferenceBatch) -> jax.Array:
        return reply_sums(plan.scoring, plan.bounds.rows, batch.rows, params, frozen)

    rows, found = [*data.train, *data.test], []
    for start in range(0, len(rows), size):
        some = [*rows[start : start + size], *[None] * (start + size - len(rows))][:size]
        found.append(np.asarray(sums(params, model.base, batch_of(data, some))))
    return np.concatenate(found)[: len(rows)]


def margins(data: Data, scores: np.ndarray) -> np.ndarray:
    """Chosen minus rejected of each held-out pair."""
    return np.asarray(
        [
            scores[data.numbers[row], one.chosen] - scores[data.numbers[row], one.rejected]
            for row in data.test
            for one in row.judged
        ]
    )


def run_fold(seed: int, options: argparse.Namespace) -> dict:
    """One seed: what each held-out pair's margins are under the policy and its controls."""
    start, size = time.perf_counter(), options.prompts
    data = read_fold(options.model, seed % FOLDS, steered=options.steered)
    model = build(options.model, data, options.layers, options.rank, size)
    config = PreferenceConfig(beta=options.beta, reference="precomputed")
    plan = PreferencePlan(model.graphdef, data.bounds, config)
    print(f"seed {seed}: {len(data.train)} prompts, states {time.perf_counter() - start:.0f} s")
    begun = model.fresh(seed)
    first, imitated = fitted(
        imitation_loss(plan),
        data,
        model,
        begun,
        options,
        seed=seed,
        epochs=1,
        rate=options.sft_rate,
    )
    kept = scored(plan, data, model, first, size)
    copy = jax.tree.map(jnp.copy, first)
    last, losses = fitted(
        preference_loss(plan),
        data,
        model,
        copy,
        options,
        seed=seed + 100,
        epochs=options.epochs,
        rate=options.rate,
        reference=kept,
    )
    after = scored(plan, data, model, last, size)
    lengths = np.asarray([[len(w) for w in row.weights] for row in [*data.train, *data.test]])
    reward = config.objective.reward(Side(after[:, :, 0], kept[:, :, 0], lengths), config.values)
    pairs = [one.pair for row in data.test for one in row.judged]
    trained = [one.pair for row in data.train for one in row.judged]
    shift = after[:, :, 0] - kept[:, :, 0]
    return {
        "seed": seed,
        "kinds": [pair.kind for pair in pairs],
        "groups": [pair.group for pair in pairs],
        "implicit reward": margins(data, np.asarray(reward)).tolist(),
        "log-probability before": margins(data, kept[:, :, 0]).tolist(),
        "log-probability after": margins(data, after[:, :, 0]).tolist(),
        "bag of words": np.asarray(word_margins(trained, pairs)).tolist(),
        "first_loss": losses[0],
        "last_loss": float(np.mean(losses[-8:])),
        "imitation": [imitated[0], float(np.mean(imitated[-8:]))],
        "shift": float(shift[len(data.train) :].mean()),
        "seconds": time.perf_counter() - start,
    }


def summarised(runs: Sequence[dict]) -> dict:
    """Accuracy by kind over all folds: each statement is held out once."""
    table = {}
    for kind in ("statement", "role"):
        table[kind] = {}
        for what in (
            "implicit reward",
            "log-probability before",
            "log-probability after",
            "bag of words",
        ):
            chosen = [
                (margin, group)
                for run in runs
                for margin, group, own in zip(run[what], run["groups"], run["kinds"], strict=True)
                if own == kind
            ]
            values, groups = zip(*chosen, strict=True)
            table[kind][what] = estimate(pair_accuracy(np.asarray(values)), groups)._asdict()
            table[kind]["pairs"] = len(values)
    return table


def show(table: dict) -> None:
    for kind, found in table.items():
        print(f"{kind}: {found['pairs']} held-out pairs")
        for what, one in found.items():
            if what != "pairs":
                print(f"  {what:<24} {one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="DPO: held-out accuracy of the implicit reward.")
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--out", type=Path, default=Path("runs/preference-effect"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--layers", type=int, default=8, help="that have adapters, the last so many"
    )
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--rate", type=float, default=5e-4, help="of DPO")
    parser.add_argument("--sft-rate", type=float, default=5e-4)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=8, help="per update")
    parser.add_argument("--steered", action="store_true", help="train on steered turns, too")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in range(options.seeds):
        path = options.out / f"seed_{seed}.json"
        if not path.exists():
            write_json(path, run_fold(seed, options))
        runs.append(json.loads(path.read_text(encoding="utf-8")))
        show(summarised(runs))
    settings = {name: str(value) for name, value in vars(options).items()}
    write_json(options.out / "table.json", {"table": summarised(runs), "settings": settings})


if __name__ == "__main__":
    main()
