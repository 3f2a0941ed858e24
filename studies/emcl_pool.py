"""A pool of which a part is spoilt, and a trusted tenth: does learning the amounts find the rest?

    python studies/emcl_pool.py --model models/smollm2-135m --out runs/emcl-pool

SmolLM2-135M, an adapter in the last layer (`emcl_bench.py`), HED: 48 statements in four tasks, of
which 5 are trusted; of the other rows a share is spoilt. Kinds of spoiling:

    rejected   HED's own worse replies (a bag of words tells them from gold: docs/emcl.md)
    statement  replies exchanged among the statements of a task: no reader of replies can tell
    role       replies to the same statement under two roles exchanged

Every method gets the same number of row gradients (a forward pass counts 0.5, the `jvp` of a
gradient 2, a gradient that tells its alignment 1.1). Learning rates, and the share of trusted rows
in the best static mixture, are chosen on validation statements with a seed of their own. Reported:
the loss of gold replies of 16 test statements, how much of the gap between `all` and `oracle` is
closed, and how well the weights tell gold from spoilt rows (AUROC, at the end of the run). Every
run is kept as a file: started again, the study goes on.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from emcl_bench import (
    PARTS,
    Bench,
    Rows,
    batches_of,
    fresh_state,
    of_words,
    part_of_statement,
    prepare_documents,
    rated_optimizer,
)
from scipy.stats import t as student

from hen_jax.core.files import write_json
from hen_jax.core.types import Batch, Tree
from hen_jax.curricula.emcl import emcl_step, init_memory
from hen_jax.curricula.evaluations import EvaluationRows, evaluations, outer_updates, steps_within
from hen_jax.curricula.row_weights import row_weights, seen_of
from hen_jax.curricula.shared import EmclConfig
from hen_jax.data import samples
from hen_jax.data.episodes import episode
from hen_jax.data.examples import Document, Example
from hen_jax.data.hed import HedRecord, hed_conversation
from hen_jax.data.packing import pack_row, stack_rows
from hen_jax.data.schemas import read_records
from hen_jax.empathy.labels import LANGUAGES, TASKS
from hen_jax.models.config import LoraConfig
from hen_jax.steps.aligned import adapter_row_sums
from hen_jax.steps.sft import sft_loss
from hen_jax.steps.state import State
from hen_jax.steps.update import update_step

NAMES = tuple(TASKS)
LORA = LoraConfig(8, 16.0)
TRUSTED = 5
"""Statements of the 48 whose replies are known to be gold."""

KINDS = ("rejected", "statement", "role")
ROWS = 16
"""Of an update of plain fine-tuning."""

TUNING_SEED = 1000
RATES = (2e-3, 4e-3, 8e-3)

REWEIGHT = {
    "aligned": EmclConfig("reweight", mode="first_order", inner_steps=1),
    "exact": EmclConfig("reweight", mode="mixflow", inner_steps=1, carry=True),
}
PLAIN = ("all", "trusted", "trusted last", "mixture", "filtered", "oracle")


class Pool(NamedTuple):
    """Rows by task; `spoilt` says which, in the order of the tasks one after another."""

    train: dict[str, list[Example]]
    spoilt: np.ndarray
    trusted: dict[str, list[Example]]


class Study(NamedTuple):
    """What all runs share."""

    bench: Bench
    records: list[HedRecord]
    gold: list[Example]
    worse: dict[str, list[Example | None]]  # by kind, beside `gold`
    budget: float
    out: Path


def open_study(args: argparse.Namespace) -> Study:
    """The model, and every reply that a row may have."""
    records: list[HedRecord] = read_records(samples.path(f"hed/hed.{args.language}.jsonl"), "hed")
    documents, where = [_document(record, "gold") for record in records], {}
    for kind in args.kinds:
        replies = spoilt_replies(records, kind)
        for at, reply in enumerate(replies):
            if reply is not None:
                where[kind, at] = len(documents)
                documents.append(_document(dataclasses.replace(records[at], response=reply), kind))
    table = args.out / f"states-{'-'.join(args.kinds)}.npy"
    bench, placed = prepare_documents(args.model, documents, 1, LORA, table)
    worse = {
        kind: [
            placed[where[kind, at]] if (kind, at) in where else None for at in range(len(records))
        ]
        for kind in args.kinds
    }
    return Study(bench, records, placed[: len(records)], worse, args.budget, args.out)


def _document(record: HedRecord, kind: str) -> Document:
    return Document(f"{record.id}/{kind}", record.statement_id, hed_conversation(record))


def spoilt_replies(records: Sequence[HedRecord], kind: str) -> list[str | None]:
    """A worse reply to each record, from its own part; None where the kind has none."""
    part = part_of_statement(records)
    if kind == "rejected":
        return [record.rejected[at % len(record.rejected)].text if record.rejected else None
                for at, record in enumerate(records)]  # fmt: skip
    if kind == "role":
        of = {(one.statement_id, one.task): one for one in records}
        other = {"SRER": "SRPER", "SRPER": "SRER"}
        return [
            of[one.statement_id, other[one.task]].response if one.task in other else None
            for one in records
        ]
    # The next statement of the same part, task and, where there is one, emotion.
    found: list[str | None] = []
    for record in records:
        same = [
            one
            for one in records
            if (one.task, part[one.statement_id]) == (record.task, part[record.statement_id])
        ]
        at = same.index(record)
        found.append(same[(at + len(same) // 2) % len(same)].response)
    return found


def pool_of(study: Study, kind: str, share: float, seed: int) -> Pool:
    """The training statements' rows, so many of the untrusted ones spoilt."""
    part = part_of_statement(study.records)
    names = sorted({r.statement_id for r in study.records if part[r.statement_id] == "train"})
    random = np.random.default_rng([seed, 77])
    trusted_names = set(random.permutation(names)[:TRUSTED])
    train: dict[str, list[Example]] = {task: [] for task in NAMES}
    trusted: dict[str, list[Example]] = {task: [] for task in NAMES}
    flags: dict[str, list[bool]] = {task: [] for task in NAMES}
    for at, record in enumerate(study.records):
        if part[record.statement_id] != "train":
            continue
        worse = study.worse[kind][at]
        spoil = record.statement_id not in trusted_names and random.random() < share
        spoil = spoil and worse is not None
        train[record.task].append(worse if spoil and worse is not None else study.gold[at])
        flags[record.task].append(bool(spoil))
        if record.statement_id in trusted_names:
            trusted[record.task].append(study.gold[at])
    return Pool(train, np.concatenate([flags[task] for task in NAMES]), trusted)


def held_out(study: Study, part: str) -> list[Batch]:
    """Gold rows of a part, in batches of one shape."""
    of = part_of_statement(study.records)
    rows = [study.gold[at] for at, one in enumerate(study.records) if of[one.statement_id] == part]
    assert len(rows) == PARTS[part] * len(NAMES)
    return [_batch(study.bench, rows[at : at + ROWS]) for at in range(0, len(rows), ROWS)]


def _batch(bench: Bench, rows: Sequence[Example]) -> Batch:
    return of_words(bench, stack_rows([pack_row([one], bench.row_length) for one in rows]))


def plain_batches(
    pool: Pool, method: str, share: float, steps: int, seed: int
) -> Iterator[list[Example]]:
    """The rows of each update of a baseline; `share` is that of the trusted ones in a mixture."""
    random = np.random.default_rng([seed, 5])
    every = [one for task in NAMES for one in pool.train[task]]
    trusted = [one for task in NAMES for one in pool.trusted[task]]
    if method == "oracle":
        every = [one for one, bad in zip(every, pool.spoilt, strict=True) if not bad]
    drawn, last = _endless(every, random), _endless(trusted, random)
    for step in range(steps):
        of_trusted = {
            "trusted": ROWS,
            "trusted last": ROWS if step >= 0.75 * steps else 0,
            "mixture": round(share * ROWS),
        }.get(method, 0)
        yield [next(last) for _ in range(of_trusted)] + [
            next(drawn) for _ in range(ROWS - of_trusted)
        ]


def _endless(rows: Sequence[Example], random: np.random.Generator) -> Iterator[Example]:
    while True:
        for at in random.permutation(len(rows)):
            yield rows[at]


class Programs(NamedTuple):
    """Compiled once for all runs."""

    plain: Callable[..., Any]
    filtered: Callable[..., Any]
    reweight: dict[str, tuple[Callable[..., Any], EmclConfig, int, optax.GradientTransformation]]
    steps: int
    optimizer: optax.GradientTransformation
    loss: Callable[..., Any]
    row_sums: Any


def programs_of(study: Study, rows: Rows) -> Programs:
    """The steps of all methods."""
    loss = sft_loss(study.bench.graphdef, study.bench.capacity)
    row_sums = adapter_row_sums(study.bench.graphdef, LORA, study.bench.capacity)
    steps = int(study.budget // ROWS)
    optimizer = rated_optimizer(steps)
    update = update_step(loss, optimizer)

    def filtered(state: State, frozen: Tree, batch: Batch, kept: Any) -> Any:
        """Of the rows those of the smallest losses, as many as are thought to be gold."""
        sums, counts = row_sums(state.params, frozen, batch, None, None)
        rank = jnp.argsort(jnp.argsort(sums / counts))
        return update(state, frozen, batch._replace(weight=(rank < kept).astype(jnp.float32)))

    made = {}
    size = EvaluationRows(rows.support, rows.query)
    for name, config in REWEIGHT.items():
        number = steps_within(config, size, len(NAMES), study.budget)
        own = rated_optimizer(int(outer_updates(config, len(NAMES), number).sum()))
        step = emcl_step(config, loss, own, NAMES, number, row_sums=row_sums)
        made[name] = jax.jit(step, donate_argnums=0), config, number, own
    return Programs(
        jax.jit(update, donate_argnums=0),
        jax.jit(filtered, donate_argnums=0),
        made,
        steps,
        optimizer,
        jax.jit(loss),
        jax.jit(lambda p, f, b: row_sums(p, f, b, None, None)),
    )


class Run(NamedTuple):
    """What is trained."""

    kind: str
    share: float
    method: str
    rate: float
    seed: int
    part: str  # that is asked
    trusted_share: float = 0.0  # of a mixture


def do(study: Study, programs: Programs, rows: Rows, run: Run) -> dict[str, Any]:
    """Trains and asks, unless the file of this run is there."""
    name = "-".join(str(one).replace(" ", "_") for one in run)
    path = study.out / "runs" / f"{name}.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found["budget"] == study.budget:
            return found
    start = time.perf_counter()
    pool = pool_of(study, run.kind, run.share, run.seed)
    train = _reweighted if run.method in REWEIGHT else _plain
    params, more = train(study, programs, rows, run, pool)
    total = count = 0.0
    for batch in held_out(study, run.part):
        mean, _ = programs.loss(params, study.bench.base, batch)
        total, count = total + float(mean.total), count + float(mean.count)
    found = {**run._asdict(), "budget": study.budget, "loss": total / count, **more}
    found["seconds"] = round(time.perf_counter() - start, 1)
    write_json(path, found)
    print(f"{name}: {found['loss']:.4f}", more, f"{found['seconds']} s", flush=True)
    return found


def _plain(
    study: Study, programs: Programs, rows: Rows, run: Run, pool: Pool
) -> tuple[Tree, dict[str, Any]]:
    state = fresh_state(study.bench, programs.optimizer, run.seed, run.rate)
    kept = round(ROWS * (1 - pool.spoilt.mean()))
    # A filter's forward pass on each row is half a gradient: fewer updates.
    steps = programs.steps if run.method != "filtered" else int(programs.steps / 1.5)
    for some in plain_batches(pool, run.method, run.trusted_share, steps, run.seed):
        batch = _batch(study.bench, some)
        if run.method == "filtered":
            state, _ = programs.filtered(state, study.bench.base, batch, kept)
        else:
            state, _ = programs.plain(state, study.bench.base, batch)
    return state.params, {}


def _reweighted(
    study: Study, programs: Programs, rows: Rows, run: Run, pool: Pool
) -> tuple[Tree, dict[str, Any]]:
    step, config, steps, optimizer = programs.reweight[run.method]
    state = fresh_state(study.bench, optimizer, run.seed, run.rate)
    examples = len(pool.spoilt)
    key = jax.random.key(run.seed)
    state = state._replace(memory=init_memory(config, NAMES, key, examples=examples))
    for number in range(steps):
        draws = episode(
            pool.train, run.seed, number, rows.steps * rows.support, rows.query, pool.trusted
        )
        drawn = batches_of(study.bench, pool.train, draws, rows, pool.trusted)
        state, _ = step(state, study.bench.base, drawn)
    weights = _final_weights(study, programs, config, state, pool)
    spent = float(evaluations(config, EvaluationRows(rows.support, rows.query), len(NAMES),
                              steps).sum())  # fmt: skip
    visited = np.asarray(state.memory.visits.count) > 0
    return state.params, {
        "auroc": auroc(weights, ~pool.spoilt),
        "influence_auroc": auroc(
            np.asarray(state.memory.visits.influence)[visited], ~pool.spoilt[visited]
        ),
        "weight_of_gold": float(weights[~pool.spoilt].mean()),
        "weight_of_spoilt": float(weights[pool.spoilt].mean()),
        "spent": spent,
    }


def _final_weights(
    study: Study, programs: Programs, config: EmclConfig, state: State, pool: Pool
) -> np.ndarray:
    """Of every row of the pool, at the end of the run, in one batch."""
    every = [(task, one) for task, own in enumerate(NAMES) for one in pool.train[own]]
    sums, counts = [], []
    for at in range(0, len(every), ROWS):
        batch = _batch(study.bench, [one for _, one in every[at : at + ROWS]])
        some = programs.row_sums(state.params, study.bench.base, batch)
        sums.append(some[0])
        counts.append(some[1])
    place = np.arange(len(every), dtype=np.int32)
    tasks = np.asarray([task for task, _ in every], np.int32)
    rows = Batch(*[place] * 5, task=tasks, example=place)
    seen = seen_of(state.memory.visits, rows, np.concatenate(sums), np.concatenate(counts))
    return np.asarray(row_weights(config, state.memory.eta, seen, jnp.float32(1.0)))


def auroc(scores: np.ndarray, good: np.ndarray) -> float:
    """How often a good one has the higher score; ties count half."""
    above, below = scores[good][:, None], scores[~good][None]
    return float((above > below).mean() + 0.5 * (above == below).mean())


def setting(study: Study, programs: Programs, rows: Rows, kind: str, share: float, seeds: int):
    """All methods of one kind and share of spoiling."""
    found: dict[str, list[dict]] = {}
    for method in [*PLAIN, *REWEIGHT]:
        shares = (0.25, 0.5) if method == "mixture" else (0.0,)
        tried = [
            do(study, programs, rows, Run(kind, share, method, rate, TUNING_SEED, "valid", own))
            for rate in RATES
            for own in shares
        ]
        best = min(tried, key=lambda one: one["loss"])
        found[method] = [
            do(
                study,
                programs,
                rows,
                Run(kind, share, method, best["rate"], seed, "test", best["trusted_share"]),
            )
            for seed in range(seeds)
        ]
    print(table(kind, share, found), flush=True)
    return found


def table(kind: str, share: float, found: dict[str, list[dict]]) -> str:
    """Means over seeds, the share of the gap closed, and the difference from `trusted`."""
    losses = {name: np.asarray([one["loss"] for one in runs]) for name, runs in found.items()}
    gap = losses["all"] - losses["oracle"]
    lines = [
        f"\n{kind}, {share:.0%} spoilt, {len(gap)} seeds",
        "| method | loss | gap closed | minus trusted only | AUROC |",
        "|---|---|---|---|---|",
    ]
    for name, own in losses.items():
        closed = (losses["all"] - own).mean() / gap.mean()
        less = own - losses["trusted"]
        half = student.ppf(0.975, len(less) - 1) * less.std(ddof=1) / np.sqrt(len(less))
        told = [one["auroc"] for one in found[name] if "auroc" in one]
        lines.append(
            f"| {name} | {own.mean():.3f} ± {own.std(ddof=1):.3f} | {closed:.0%} | "
            f"{less.mean():+.3f} ({less.mean() - half:+.3f} to {less.mean() + half:+.3f}) | "
            f"{f'{np.mean(told):.2f}' if told else ''} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Every setting, one after another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of SmolLM2-135M")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and the report")
    parser.add_argument("--language", choices=LANGUAGES, default="en")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--shares", nargs="+", type=float, default=[0.6, 0.3])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=640.0, help="row gradients of a run")
    args = parser.parse_args()
    args.out /= args.language
    (args.out / "runs").mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(args.out / "xla"))
    study = open_study(args)
    rows = Rows(steps=1, support=3, query=1)
    programs = programs_of(study, rows)
    for share in args.shares:
        for kind in args.kinds:
            setting(study, programs, rows, kind, share, args.seeds)


if __name__ == "__main__":
    main()
