"""How well a router recognises the four contexts: SmolLM2-135M, shipped conversations, three seeds.

    python studies/router_quality.py --model models/smollm2-135m --out runs/router-quality

Groups are dealt to five folds, anew for each seed. As in `config.recipe="router"` one fold tests,
the next calibrates and three train, and each fold is held out once; so every conversation is tested
once a seed. Printed is a row for each number of the user's messages and each layer: accuracy with
its 95 % over conversations (the mean over seeds of each), macro-F1, what the threshold routes, and
the AUROC of "belongs to no expert", an expert left out of training at a time. Beside them a bag of
words and the largest context.

Which layer is read is a choice, too: "chosen layer" makes it by the calibrating fold, so that the
test fold has no part in it. The vectors of a layer are computed once. The regression is fitted to
its optimum, which the stage's updates come within 0.01 of (tests/test_router.py).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax

from hen_jax.adapters.router import state_reader
from hen_jax.core.files import write_json
from hen_jax.data.splits import part_number
from hen_jax.evaluation.preferences import estimate
from hen_jax.evaluation.ratings import macro_f1
from hen_jax.evaluation.routing import calibrate, left_out_auroc
from hen_jax.evaluation.softmax_ridge import fit_softmax, word_logits
from hen_jax.io import hf
from hen_jax.models.config import Execution
from hen_jax.recipes.router_vectors import scale_of
from hen_jax.runs.rated import Folds
from hen_jax.runs.routed import RoutedPart, RouteTo, routed_parts
from hen_jax.runs.routing import RouterReading, common_prompt_start
from hen_jax.runs.sources import Source
from hen_jax.text.detect import open_chat_tokenizer

CONTEXTS = ("distress", "career", "learning", "writing")
FOLDS, SEEDS = 5, 3


def main() -> None:
    """Reads the flags, computes, prints and writes."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--model", required=True, type=Path)
    flags.add_argument("--out", required=True, type=Path)
    flags.add_argument("--layers", nargs="+", type=int, default=[10, 15, 20, 25])
    flags.add_argument("--turns", nargs="+", type=int, default=[1, 2, 3])
    flags.add_argument("--ridge", type=float, default=1e-2)
    chosen = flags.parse_args()
    tokenizer, config = open_chat_tokenizer(chosen.model), hf.read_config(chosen.model)
    base, rows = hf.read_params(chosen.model, config, "float32"), []

    def tell(**row: Any) -> None:
        rows.append(row)
        print(row, flush=True)

    for turns in chosen.turns:
        data, vectors = all_of(RouterReading(turns=turns), tokenizer), {}
        tell(turns=turns, reads="words", **cross_validated(data, {}, chosen.ridge))
        for layer in chosen.layers:
            read = state_reader(config, base, layer, Execution(remat="none"))
            vectors[layer] = read(data.documents, common_prompt_start(tokenizer))
            own = cross_validated(data, {layer: vectors[layer]}, chosen.ridge)
            tell(turns=turns, reads=f"layer {layer}", **own)
        tell(turns=turns, reads="chosen layer", **cross_validated(data, vectors, chosen.ridge))
        counts = np.bincount(data.labels[data.whole])
        largest = counts.max() / counts.sum()
        tell(turns=turns, reads="nothing", accuracy=[round(float(largest), 3)])
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out / "router.json", {"ridge": chosen.ridge, "rows": rows})


def all_of(reading: RouterReading, tokenizer: Any) -> RoutedPart:
    """Every shipped conversation, with its context's number."""
    routes = [RouteTo(name, (Source("steered", f"shipped:eea/{name}.jsonl"),)) for name in CONTEXTS]
    parts = routed_parts(routes, (), Folds(count=FOLDS), reading, tokenizer)
    three = [parts["train"], parts["calibration"], parts["test"]]
    return RoutedPart(
        "train",
        [one for part in three for one in part.documents],
        *(
            np.concatenate(column)
            for column in zip(
                *((part.labels, part.messages, part.whole) for part in three), strict=True
            )
        ),
        [one for part in three for one in part.groups],
        [one for part in three for one in part.texts],
    )


def cross_validated(
    data: RoutedPart, vectors: dict[int, np.ndarray], ridge: float
) -> dict[str, Any]:
    """The figures over all seeds and folds, of the layer that suits the calibrating fold best.

    `vectors` are those of each layer; without any, the figures are those of a bag of words.
    """
    right, routed, scores, left_out = np.zeros((SEEDS, len(data.labels))), [], [], []
    for seed in range(SEEDS):
        best, number = np.zeros(len(data.labels), int), fold_of(data.groups, f"router-{seed}")
        for held in range(FOLDS):
            test, next_one = number == held, number == (held + 1) % FOLDS
            train = ~(test | next_one)
            layer, logits = best_logits(data, vectors, train, next_one, ridge)
            best[test] = logits[test].argmax(axis=1)
            fixed = calibrate(logits[next_one], data.labels[next_one], 0.95)
            test &= data.whole
            passed = fixed.probabilities(logits[test]).max(axis=1) >= fixed.threshold
            routed.append([passed.mean(), (best[test] == data.labels[test])[passed].mean()])
            if layer is not None:
                scale = scale_of(vectors[layer][train])
                of = [(scale.standard(vectors[layer][at]), data.labels[at]) for at in (train, test)]
                left_out.append(left_out_auroc(of[0], of[1], CONTEXTS, ridge)["mean"])
        right[seed] = best == data.labels
        scores.append(macro_f1(data.labels[data.whole], best[data.whole]))
    groups = [group for group, mine in zip(data.groups, data.whole, strict=True) if mine]
    accuracy = estimate(right.mean(axis=0)[data.whole], groups)
    passed, of_passed = np.mean(routed, axis=0)
    return {
        "accuracy": [round(float(x), 3) for x in (accuracy.value, accuracy.low, accuracy.high)],
        "by_seed": right[:, data.whole].mean(axis=1).round(3).tolist(),
        "by_messages": [
            round(float(right[:, data.messages == count].mean()), 3)
            for count in np.unique(data.messages)
        ],
        "macro_f1": round(float(np.mean(scores)), 3),
        "routed": round(float(passed), 3),
        "accuracy_of_routed": round(float(of_passed), 3),
        "unknown_auroc": round(float(np.mean(left_out)), 3) if left_out else None,
    }


def best_logits(
    data: RoutedPart,
    vectors: dict[int, np.ndarray],
    train: np.ndarray,
    choose: np.ndarray,
    ridge: float,
) -> tuple[int | None, np.ndarray]:
    """`[N, C]` of every conversation, fitted on `train`; the layer is the likeliest on `choose`."""
    labels = data.labels[train]
    if not vectors:
        some = [text for text, mine in zip(data.texts, train, strict=True) if mine]
        return None, word_logits(some, labels, data.texts, len(CONTEXTS))
    found = []
    for layer, own in vectors.items():
        scale = scale_of(own[train])
        head = fit_softmax(scale.standard(own[train]), labels, len(CONTEXTS), ridge)
        logits = head.logits(scale.standard(own))
        likely = log_softmax(logits[choose], axis=1)
        loss = -likely[np.arange(len(likely)), data.labels[choose]].mean()
        found.append((loss, layer, logits))
    _, layer, logits = min(found, key=lambda one: one[0])
    return layer, logits


def fold_of(groups: Sequence[str], salt: str) -> np.ndarray:
    """`[N]` the fold of each group's name."""
    return np.asarray([part_number(group, FOLDS, salt) for group in groups])


if __name__ == "__main__":
    main()
