"""How well a rating model with a SmolLM2-135M trunk predicts held-out SENSE-7-style ratings.

    python studies/regression_quality.py --model models/smollm2-135m --out build/regression

The trunk is frozen and its states are computed once; a sigmoid head is fitted on them. Groups
(participants) are dealt to five folds, three times over. Layer and ridge of each outer fold are
chosen by inner folds of its training groups alone; the held-out fold is looked at once. Beside it
stand the constant predictor, length, a bag of words, the same model on replies alone, one layer at
a time, and a quarter or half of the training groups. `--runs DIR ...` adds runs of the stage itself
(`hen run --config=regression --config.folds.held=K`), one for each fold, by their `held_out.jsonl`.

Minutes on two cores: two passes over the set for the states, and seconds for each head.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from hen_jax.core.files import write_json
from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.data import samples
from hen_jax.data.rated import RatedDocument, rated_sense7, replies_only
from hen_jax.data.rated_batches import (
    Marked,
    RatedConfig,
    bounds_of_rows,
    eval_rated,
    mark,
    pack_rated,
)
from hen_jax.data.rating_words import length_ratings, word_ratings
from hen_jax.data.sense7 import read_sense7
from hen_jax.data.splits import part_number
from hen_jax.evaluation.preferences import estimates
from hen_jax.evaluation.regression import RegressionScores, interval, regression_scores
from hen_jax.models.config import RATING_LABELS, Execution
from hen_jax.models.decoder import Decoder, merge
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.model import open_model, with_score_head
from hen_jax.text.chat import render_all

FOLDS, INNER, SEEDS = 5, 4, 3
LAYERS = (10, 20, 30)
RIDGES = (0.003, 0.03, 0.3, 3.0)


class States(NamedTuple):
    """The trunk's states of one conversation, and what its user said of it."""

    group: str
    rating: float
    turns: dict[int, np.ndarray]  # layer -> [m, D] at the ends of rated replies
    end: dict[int, np.ndarray]  # layer -> [1, D] at its own end
    levels: np.ndarray  # [m] ratings of the replies


def trunk_states(
    folder: Path, rated: Sequence[RatedDocument], reads: str, cache: Path
) -> list[States]:
    """Normed states after each of `LAYERS`, where a rating is read off; kept in `cache`."""
    tokenizer = known_tokenizer(folder)
    read = replies_only if reads == "replies" else lambda conversation: conversation
    rendered = render_all([read(one.document.conversation) for one in rated], tokenizer)
    marked = [
        mark(one, text, RATING_LABELS, "turn") for one, text in zip(rated, rendered, strict=True)
    ]
    whole = [_with_end(one) for one in marked]
    config = RatedConfig(row_length=1024, batch_size=4)
    rows = pack_rated(whole, config)
    bounds = bounds_of_rows(rows, 1)
    found: dict[str, dict[int, np.ndarray]] = {one.id: {} for one in whole}
    for layer in LAYERS:
        path = cache / f"{reads}-{layer}.npy"
        if not path.exists():
            at_marks = _states_after(folder, layer, bounds.reach)
            batches = [np.asarray(at_marks(batch)) for batch in eval_rated(rows, config, bounds)]
            np.save(path, np.concatenate(batches))
            print(f"states after layer {layer} ({reads})", flush=True)
        for row, values in zip(rows, np.load(path), strict=False):
            start = 0
            for one in row:
                found[one.id][layer] = values[start : start + len(one.marks)]
                start += len(one.marks)
    return [
        States(
            document.group,
            one.level.overall,
            {layer: own[:-1] for layer, own in found[document.id].items()},
            {layer: own[-1:] for layer, own in found[document.id].items()},
            document.targets[:, 0].astype(float),
        )
        for document, one in zip(marked, rated, strict=True)
    ]


def _with_end(one: Marked) -> Marked:
    marks = np.append(one.marks, len(one.tokens) - 1).astype(np.int32)
    targets = np.concatenate([one.targets, one.targets[-1:]])
    return Marked(one.id, one.group, one.tokens, marks, targets)


def _states_after(folder: Path, layer: int, reach) -> Callable:
    run = Execution(compute_dtype="float32", remat="none")
    model = open_model(folder, make_mesh(MeshConfig()), execution=run, dtype="float32",
                       config=with_score_head(_config(folder)))  # fmt: skip
    params = {**model.base, "blocks": jax.tree.map(lambda leaf: leaf[:layer], model.base["blocks"])}

    @jax.jit
    def states(params, batch):
        decoder: Decoder = merge(model.graphdef, params, {})
        rows = batch.batch
        hidden = decoder.hidden(rows.tokens, rows.positions, rows.segments, reach)
        return jax.numpy.take_along_axis(hidden, batch.marks[..., None], axis=1)

    return lambda batch: states(params, batch)


def _config(folder: Path):
    from hen_jax.io import hf

    return hf.read_config(folder)


class Setting(NamedTuple):
    """How a head is fitted."""

    layer: int
    ridge: float
    level: str  # "turn" or "conversation"


def fit_head(train: Sequence[States], setting: Setting) -> Callable[[Sequence[States]], np.ndarray]:
    """The sigmoid head with the least squared error and ridge; rates conversations, turn first."""
    x, y = _examples(train, setting)
    centre, scale = x.mean(axis=0), x.std()
    # The best weights lie in the span of the examples, of which there are fewer than dimensions.
    _, _, basis = np.linalg.svd((x - centre) / scale, full_matrices=False)
    width = x.shape[1]

    def seen(states: np.ndarray) -> np.ndarray:
        return np.c_[((states - centre) / scale) @ basis.T, np.ones(len(states))]

    x = seen(x)
    start = np.zeros(x.shape[1])
    start[-1] = np.log(y.mean() / (1 - y.mean()))

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        p = expit(x @ w)
        error = p - y
        slope = x.T @ (2 * error * p * (1 - p)) / len(y)
        penalty = setting.ridge / width * w
        penalty[-1] = 0
        return float(np.mean(error**2) + penalty @ w / 2), slope + penalty

    w = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x

    def rate(conversations: Sequence[States]) -> np.ndarray:
        return np.asarray([expit(seen(_places(one, setting)) @ w).mean() for one in conversations])

    return rate


def _examples(train: Sequence[States], setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    x = np.concatenate([_places(one, setting) for one in train])
    turns = setting.level == "turn"
    return x, np.concatenate([one.levels if turns else [one.rating] for one in train])


def _places(one: States, setting: Setting) -> np.ndarray:
    return (one.turns if setting.level == "turn" else one.end)[setting.layer].astype(float)


def choose(train: Sequence[States], settings: Sequence[Setting], seed: int) -> Setting:
    """The setting with the least error on inner folds of the training groups."""
    fold = np.asarray([part_number(one.group, INNER, f"inner {seed}") for one in train])
    truth = np.asarray([one.rating for one in train])

    def error(setting: Setting) -> float:
        found = np.zeros(len(train))
        for held in np.unique(fold):
            rate = fit_head(
                [one for one, at in zip(train, fold, strict=True) if at != held], setting
            )
            found[fold == held] = rate(
                [one for one, at in zip(train, fold, strict=True) if at == held]
            )
        return float(np.mean((found - truth) ** 2))

    return min(settings, key=error)


def held_out(
    states: Sequence[States], settings: Sequence[Setting], seed: int, share: float = 1.0
) -> tuple[np.ndarray, list[Setting]]:
    """Out-of-fold ratings of all conversations, and the settings that were chosen.

    `share` of the training groups is used.
    """
    fold = folds(states, seed)
    found, chosen = np.zeros(len(states)), []
    for held in range(FOLDS):
        train = [one for one, at in zip(states, fold, strict=True) if at != held]
        names = sorted({one.group for one in train})
        kept = np.random.default_rng(seed).permutation(names)[
            : max(INNER, round(share * len(names)))
        ]
        train = [one for one in train if one.group in set(kept)]
        best = settings[0] if len(settings) == 1 else choose(train, settings, seed)
        chosen.append(best)
        found[fold == held] = fit_head(train, best)(
            [one for one, at in zip(states, fold, strict=True) if at == held]
        )
    return found, chosen


def folds(states: Sequence[States], seed: int) -> np.ndarray:
    return np.asarray([part_number(one.group, FOLDS, _salt(seed)) for one in states])


def _salt(seed: int) -> str:
    return "folds" if seed == 0 else f"folds {seed}"  # seed 0 is `config.folds` of the stage


def constants(states: Sequence[States], seed: int) -> np.ndarray:
    """The mean rating of the training folds."""
    fold, truth = folds(states, seed), np.asarray([one.rating for one in states])
    return np.asarray([truth[fold != at].mean() for at in fold])


def words(texts: Sequence[str], states: Sequence[States], seed: int, rate: Callable) -> np.ndarray:
    fold, truth = folds(states, seed), np.asarray([one.rating for one in states])
    found = np.zeros(len(states))
    for held in range(FOLDS):
        train, test = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        found[test] = rate([texts[at] for at in train], truth[train], [texts[at] for at in test])
    return found


def summary(states: Sequence[States], found: Sequence[np.ndarray], seeds: Sequence[int]) -> dict:
    """Scores averaged over seeds, with intervals by resampling participants."""
    constant = [constants(states, seed) for seed in seeds]
    rows = np.stack([[one.rating for one in states], *found, *constant], axis=1)
    count = len(found)

    def statistic(rows: np.ndarray) -> np.ndarray:
        truth, ours, floor = rows[:, 0], rows[:, 1 : 1 + count], rows[:, 1 + count :]
        each = [
            [*(scores := regression_scores(truth, one)), scores.mse / np.mean((truth - flat) ** 2)]
            for one, flat in zip(ours.T, floor.T, strict=True)
        ]
        return np.mean(each, axis=0)

    told = estimates(rows, [one.group for one in states], statistic, draws=1000)
    names = (*RegressionScores._fields, "mse_ratio")
    by_seed = [regression_scores(rows[:, 0], one) for one in found]
    ratios = [
        scores.mse / float(np.mean((rows[:, 0] - flat) ** 2))
        for scores, flat in zip(by_seed, constant, strict=True)
    ]
    return {name: interval(one) for name, one in zip(names, told, strict=True)} | {
        "seeds": {
            "mse_ratio": [round(one, 3) for one in ratios],
            "spearman": [round(one.spearman, 3) for one in by_seed],
        }
    }


def from_runs(
    states: Sequence[States], rated: Sequence[RatedDocument], runs: Sequence[Path]
) -> dict:
    """What runs of the stage predicted of their folds; conversations of no run are left out."""
    lines = [
        json.loads(line)
        for run in runs
        for line in (run / "held_out.jsonl").read_text().splitlines()
    ]
    predicted = {line["id"]: line["predicted"] for line in lines}
    kept = [at for at, one in enumerate(rated) if one.document.id in predicted]
    ours = [states[at] for at in kept]
    truth = np.asarray([one.rating for one in ours])
    constant = constants(states, 0)[kept]
    found = np.asarray([predicted[rated[at].document.id] for at in kept])
    scores = regression_scores(truth, found)
    return scores._asdict() | {
        "conversations": len(kept),
        "mse_ratio": scores.mse / float(np.mean((truth - constant) ** 2)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, nargs="+", default=[])
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    records = read_sense7(samples.path("sense7/conversations.jsonl"))
    rated = [one for one in map(rated_sense7, records) if one is not None]
    seeds = range(SEEDS)
    every = [Setting(layer, ridge, "turn") for layer in LAYERS for ridge in RIDGES]
    report: dict = {"conversations": len(rated), "folds": FOLDS, "seeds": SEEDS, "models": {}}

    def add(name: str, states: Sequence[States], settings: Sequence[Setting], share: float = 1.0):
        found = [held_out(states, settings, seed, share) for seed in seeds]
        told = summary(states, [ratings for ratings, _ in found], seeds)
        told["chosen"] = sorted(
            {f"layer {one.layer}, ridge {one.ridge:g}" for _, of in found for one in of}
        )
        report["models"][name] = told
        line = {key: told[key] for key in ("mse_ratio", "spearman")}
        print(f"{name}: {line}", flush=True)

    texts = [
        "\n".join(m.content for m in one.document.conversation.messages if m.role == "assistant")
        for one in rated
    ]
    for reads in ("conversation", "replies"):
        states = trunk_states(asked.model, rated, reads, asked.out)
        add(reads, states, every)
        whole = [one._replace(level="conversation") for one in every]
        add(f"{reads}, from its end alone", states, whole)
        if reads == "replies":
            continue
        for layer in LAYERS:
            add(f"layer {layer}", states, [one for one in every if one.layer == layer])
        for share in (0.25, 0.5):
            add(f"{share:g} of the training groups", states, every, share)
        for name, rate in {"length": length_ratings, "bag of words": word_ratings}.items():
            found = [words(texts, states, seed, rate) for seed in seeds]
            report["models"][name] = summary(states, found, seeds)
        flat = [constants(states, seed) for seed in seeds]
        report["models"]["constant"] = summary(states, flat, seeds)
        if asked.runs:
            report["stage"] = from_runs(states, rated, asked.runs)
            print("stage:", report["stage"])
    write_json(asked.out / "regression_quality.json", report)
    (asked.out / "regression_quality.md").write_text(table(report), encoding="utf-8")
    print(table(report))


def table(report: dict) -> str:
    lines = [
        "| model | MSE / constant's | MSE | MAE | Pearson | Spearman | accuracy | F1 | within 1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    names = ("mse_ratio", "mse", "mae", "pearson", "spearman", "accuracy", "macro_f1", "within_one")
    for model, told in report["models"].items():
        cells = [_cell(told[name], name in ("mse_ratio", "spearman")) for name in names]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(one: dict, bounds: bool) -> str:
    if one["value"] is None:
        return "n/a"
    text = f"{one['value']:.3f}"
    return f"{text} ({one['low']:.2f} to {one['high']:.2f})" if bounds else text


if __name__ == "__main__":
    main()
