"""Does a learnt order of tasks help? EMCL-A, B and C against their baselines, at equal compute.

    python studies/emcl_effect.py --model models/smollm2-135m --out runs/emcl-effect

SmolLM2-135M, adapters in the last layers (see `emcl_bench.py`), the four English HED tasks. Every
method gets the same number of gradient evaluations (of one row; a forward pass counts 0.5, the
`jvp` of a gradient 2), the same episodes and the same fresh adapter per seed. Its learning rate is
the best of the same grid on validation statements. Reported is the loss on test statements after
adaptation to two others, its mean over seeds, and the difference from each baseline with its 95 %
interval (t, paired by seed). Every run is kept as a file: started again, the study goes on.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from emcl_bench import (
    Bench,
    Rows,
    fresh_state,
    held_out_episodes,
    prepare,
    rated_optimizer,
    training_episode,
)
from emcl_report import write_report

from hen_jax.core.files import write_json
from hen_jax.core.types import Tree
from hen_jax.curricula import evaluations
from hen_jax.curricula.emcl import emcl_step, init_memory
from hen_jax.curricula.learnt import reply_features
from hen_jax.curricula.shared import EmclConfig, evaluation
from hen_jax.empathy.labels import TASKS
from hen_jax.models.config import LoraConfig
from hen_jax.steps.sft import sft_loss
from hen_jax.steps.state import State

NAMES = tuple(TASKS)
TUNING_SEEDS = (1000, 1001)
"""Of the runs that choose a learning rate: none of the seeds that are reported."""

METHODS: dict[str, dict[str, Any]] = {
    "EMCL-A": {"curriculum": "emcl_a", "difficulty": "visited", "carry": True},
    "EMCL-B": {"curriculum": "emcl_b", "sharing": 2, "carry": True},
    "EMCL-C": {"curriculum": "emcl_c", "carry": True},
    "EMCL-A plain": {"curriculum": "emcl_a"},
    "uniform": {"curriculum": "uniform"},
    "easy to hard": {"curriculum": "easy_to_hard"},
    "hard to easy": {"curriculum": "hard_to_easy"},
    "random order": {"curriculum": "random"},
    "plain SFT": {"curriculum": "sft"},
    # What is left of EMCL-A when the order is given and not learnt.
    "easy to hard, carry": {"curriculum": "easy_to_hard", "carry": True},
}


class Study(NamedTuple):
    """What all methods share."""

    bench: Bench
    rows: Rows
    budget: float  # gradient evaluations of a run
    rates: tuple[float, ...]
    inner_rate: float


class Method(NamedTuple):
    """A method with its programs, compiled once for all seeds and learning rates."""

    name: str
    config: EmclConfig
    steps: int
    evaluations: float
    optimizer: optax.GradientTransformation
    step: Callable[..., Any]
    evaluate: Callable[..., Any]


def main() -> None:
    args = _arguments()
    jax.config.update("jax_compilation_cache_dir", str(args.out / "xla"))
    lora = LoraConfig(args.rank, 2.0 * args.rank)
    table = args.out / f"states-{args.layers}.npy"
    bench = prepare(args.model, args.layers, lora, table)
    rows = Rows(steps=2, support=1, query=args.query)
    study = Study(bench, rows, args.budget, tuple(args.rates), args.inner_rate)
    runs: dict[str, list[dict]] = {}
    for name in args.methods or METHODS:
        method = build(name, study)
        best = min(study.rates, key=lambda rate: _validated(args.out, study, method, rate))
        tested = [run(args.out, study, method, seed, best, "test") for seed in range(args.seeds)]
        runs[name] = tested
    setting = {
        "model": "SmolLM2-135M",
        "adapted_layers": args.layers,
        "lora_rank": args.rank,
        "budget": args.budget,
        "inner_learning_rate": args.inner_rate,
        "rows": rows._asdict(),
        "words": bench.config.vocab_size,
    }
    print(write_report(args.out, setting, runs))


def _validated(out: Path, study: Study, method: Method, rate: float) -> float:
    """The mean validation loss of a learning rate."""
    tuned = [run(out, study, method, seed, rate, "valid") for seed in TUNING_SEEDS]
    return sum(found["loss"] for found in tuned) / len(tuned)


def build(name: str, study: Study) -> Method:
    """The method's compiled step, as many steps as the budget allows, and its evaluation."""
    config = EmclConfig(inner_learning_rate=study.inner_rate, **METHODS[name])
    size = evaluations.EvaluationRows(study.rows.support, study.rows.query)
    steps = evaluations.steps_within(config, size, len(NAMES), study.budget)
    spent = evaluations.evaluations(config, size, len(NAMES), steps).sum()
    updates = int(evaluations.outer_updates(config, len(NAMES), steps).sum())
    loss = sft_loss(study.bench.graphdef, study.bench.capacity)
    optimizer = rated_optimizer(updates)
    step = emcl_step(config, loss, optimizer, NAMES, steps, reply_features(study.bench.graphdef))
    return Method(
        name=name,
        config=config,
        steps=steps,
        evaluations=float(spent),
        optimizer=optimizer,
        step=jax.jit(step, donate_argnums=0),
        evaluate=jax.jit(evaluation(config, loss, NAMES)),
    )


def run(
    out: Path, study: Study, method: Method, seed: int, rate: float, part: str
) -> dict[str, Any]:
    """Trains and evaluates, unless the file of this run is there already."""
    key = f"{method.name.replace(' ', '-')}-{part}-{seed}-{rate:g}"
    path = out / "runs" / f"{key}.json"
    asked = {
        "config": dataclasses.asdict(method.config),
        "steps": method.steps,
        "rows": study.rows._asdict(),
        "layers": study.bench.config.layers,
        "rank": study.bench.lora.rank,
    }
    if path.exists():
        found = json.loads(path.read_text())
        if found["asked"] == asked:
            return found
    start = time.perf_counter()
    state = _fresh_state(study, method, seed, rate)
    log = []
    for number in range(method.steps):
        drawn = training_episode(study.bench, study.rows, seed, number)
        state, metrics = method.step(state, study.bench.base, drawn)
        log.append(metrics)
    found = {
        "method": method.name,
        "seed": seed,
        "learning_rate": rate,
        "evaluations": method.evaluations,
        **_held_out(study, method, state.params, part),
        "seconds": time.perf_counter() - start,
        "asked": asked,
        "log": [{k: float(m.total / m.count) for k, m in one.items()} for one in log],
    }
    write_json(path, found)
    print(f"{key}: {found['loss']:.4f} ({found['before']:.4f} before), {found['seconds']:.0f} s")
    return found


def _fresh_state(study: Study, method: Method, seed: int, rate: float) -> State:
    state, width = fresh_state(study.bench, method.optimizer, seed, rate), study.bench.config.width
    return state._replace(memory=init_memory(method.config, NAMES, state.key, width + 1))


def _held_out(study: Study, method: Method, params: Tree, part: str) -> dict[str, float]:
    """The loss after adaptation, and without, the mean over all statements of the part."""
    sums: dict[str, list] = {}
    for drawn in held_out_episodes(study.bench, part, study.rows):
        mean, metrics = method.evaluate(params, study.bench.base, drawn)
        for name, value in (metrics | {"loss": mean}).items():
            sums.setdefault(name, []).append(float(value.total / value.count))
    return {name: sum(values) / len(values) for name, values in sums.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of SmolLM2-135M")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and reports")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), help="default: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=320.0, help="gradient evaluations per run")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3, 3.5e-3, 6e-3, 2e-2])
    parser.add_argument("--inner-rate", type=float, default=0.03)
    parser.add_argument("--layers", type=int, default=1, help="adapted layers, the last ones")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--query", type=int, default=2, help="query rows of a task")
    return parser.parse_args()


if __name__ == "__main__":
    main()
