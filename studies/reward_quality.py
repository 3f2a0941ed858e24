"""What reward models understand: crossed pairs, transfer and plain pairs, beside their controls.

    python studies/reward_quality.py --model models/smollm2-135m --out runs/reward-quality

SmolLM2-135M with LoRA on its last blocks, the shipped sets, three seeds; seed `s` is tested on fold
`s` of five and trained on the other four, so that each item is tested once, by a model that never
saw it. Methods were settled on folds 3 and 4 (`--tune`), which are never tested. Every run is kept
as a file, every ten updates its state: started again, the study goes on. It writes `quality.json`
and prints the table whenever a run ends; runs are in the order of their weight, `--only` names
those to do.

Where a bag of words is at one half, replies alone tell nothing: read those rows. The frozen
likelihood of the reply at its prompt, its ratio to the last turn alone and its interaction (both
questions of an item taken as one) stand beside them.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import quality_rows as ask
from quality_model import Study, open_study
from quality_report import answered, baselines, controls, table
from quality_rows import Item
from quality_train import Method, answers, begin, train

from hen_jax.core.files import write_json
from hen_jax.empathy.labels import LANGUAGES, Language

TESTED, TUNED = (0, 1, 2), {3, 4}
ALL = set(range(ask.FOLDS))


class Plan(NamedTuple):
    """A run: what it learns from and what it is asked."""

    name: str
    method: Method
    train: list[Item]
    test: list[Item]


def main() -> None:
    """Does what is missing, and reports."""
    args = _arguments()
    (args.out / "runs").mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(args.out / "xla"))
    study = open_study(args.model, args.out, args.rank, args.dtype, args.below)
    method = Method(**{name: vars(args)[name] for name in SETTINGS})
    plans = (
        tuning(method, args.sets, args.language)
        if args.tune
        else [one for make in EXPERIMENTS for one in make(method, args.language)]
    )
    for plan in plans:
        if args.only and not any(plan.name.startswith(only) for only in args.only):
            continue
        done = run(study, plan, args.out / "runs")
        print(table({plan.name: done}, {}), flush=True)
    if not args.tune:
        report(study, args.out, args.language)


def run(study: Study, plan: Plan, folder: Path) -> dict[str, Any]:
    """Trains and asks, unless the file of this run is there and was asked the same."""
    path = folder / f"{plan.name}.json"
    wanted = {
        "method": dataclasses.asdict(plan.method),
        "train": ask.described(plan.train),
        "test": ask.described(plan.test),
    }
    if path.exists() and (found := json.loads(path.read_text()))["asked"] == wanted:
        return found
    began = time.perf_counter()
    trained = begin(study, plan.method)
    if plan.train:
        trained = train(study, plan.method, plan.train, folder / f"{plan.name}.npz")
    found = {
        "asked": wanted,
        "controls": controls(plan.train or plan.test, plan.test),
        "answers": answered(plan.test, answers(study, plan.method, trained, plan.test)),
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_json(path, found)
    return found


def tuning(method: Method, sets: Sequence[str], language: Language) -> list[Plan]:
    """One run that settles the method: folds 0 to 2 train, 3 and 4 answer."""
    given = dataclasses.asdict(method)
    changed = [f"{name}={given[name]}" for name in SETTINGS if given[name] != DEFAULT[name]]
    both = [*ask.crossed_items(language), *ask.hed_items(language)]
    both = [item for item in both if not sets or item.set in sets]
    name = "-".join(["tune", *(one.replace("/", "-") for one in sets), *changed])
    train_on = ask.in_folds(both, ALL - TUNED) if method.epochs else []
    return [Plan(name, method, train_on, ask.in_folds(both, TUNED))]


def crossed(method: Method, language: Language) -> list[Plan]:
    """The shipped crossed items: the first rows of the table."""
    found = []
    for seed in TESTED:
        own, items = dataclasses.replace(method, seed=seed), ask.crossed_items(language)
        rest, unseen = ask.in_folds(items, ALL - {seed}), ask.in_folds(items, {seed})
        found.append(Plan(f"crossed-seed-{seed}", own, rest, unseen))
    return found


def hands(method: Method, language: Language) -> list[Plan]:
    """Trained on one writer's items, tested on the other's."""
    both, found = ask.crossed_items(language), []
    for seed in TESTED:
        for hand in (1, 2):
            train_on = [one for one in both if one.hand == hand]
            test_on = [one for one in both if one.hand != hand]
            own = dataclasses.replace(method, seed=seed)
            found.append(Plan(f"hand-{hand}-seed-{seed}", own, train_on, test_on))
    return found


def hed(method: Method, language: Language) -> list[Plan]:
    """Trained on HED's crossings; asked those of the other statements, and plain and hard pairs."""
    every, plain, found = ask.hed_items(language), ask.hed_plain(language), []
    pairs = [one for one in ask.hard_items() if one.set == "hard"] if language == "en" else []
    for seed in TESTED:
        own, rest = dataclasses.replace(method, seed=seed), ask.in_folds(every, ALL - {seed})
        asked = ask.in_folds([*every, *plain], {seed})
        found.append(Plan(f"hed-seed-{seed}", own, rest, [*asked, *pairs]))
    return found


def hard(method: Method, language: Language) -> list[Plan]:
    """The reverse: trained on the steered hard pairs (en), asked HED's plain ones."""
    found = []
    for seed in TESTED:
        own, unseen = dataclasses.replace(method, seed=seed), ask.hed_plain(language)
        found.append(Plan(f"hard-seed-{seed}", own, ask.hard_items(), ask.in_folds(unseen, {seed})))
    return found


EXPERIMENTS: tuple[Callable[[Method, Language], list[Plan]], ...] = (crossed, hed, hands, hard)
"""In the order of their weight."""


def report(study: Study, out: Path, language: Language) -> None:
    """`quality.json` of all runs there are, and the table."""
    paths = sorted((out / "runs").glob("*.json"))
    runs = {
        path.stem: json.loads(path.read_text())
        for path in paths
        if not path.stem.startswith("tune")
    }
    frozen = baselines(study, [*ask.crossed_items(language), *ask.hed_items(language)])
    write_json(out / "quality.json", {"runs": runs, "frozen": frozen})
    print(table(runs, frozen))


DEFAULT = dataclasses.asdict(Method())
SETTINGS = tuple(name for name in DEFAULT if name != "seed")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of SmolLM2-135M")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and the report")
    parser.add_argument("--only", nargs="*", help="beginnings of names: crossed, hed, hand, hard")
    parser.add_argument("--sets", nargs="*", default=(), help="of --tune: crossed/role, ...")
    parser.add_argument("--tune", action="store_true", help="settle the method on folds 3 and 4")
    parser.add_argument("--language", choices=LANGUAGES, default="en")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    for name in SETTINGS:
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(DEFAULT[name]), default=DEFAULT[name]
        )
    return parser.parse_args()


if __name__ == "__main__":
    main()
