"""hen-bench@1 as a suite of `hen evaluate`: each aspect with its interval, and the controls.

`accuracy` is of single questions (chance 0.5), `both` of items whose two questions are right
(chance 0.25), `interaction` of a model with likelihoods: does it tell the two prompts apart,
whatever it thinks of each option by itself (chance 0.5).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from hen_jax.evaluation.figures import Drawing, measured
from hen_jax.evaluation.suite import Found, Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import prompts_hash
from hen_jax.measures.bench import NAME, Crossed, load_bench
from hen_jax.measures.bench_controls import CONTROLS, control_values
from hen_jax.measures.choices import Choice
from hen_jax.measures.likelihoods import interaction
from hen_jax.measures.suites.asking import accuracies, choose


def chosen_items(context: SuiteContext) -> list[Crossed]:
    """The items of the languages asked for, `limit` of each aspect and language."""
    counts: dict[tuple[str, str], int] = {}
    found = []
    for one in load_bench(context.languages):
        key = one.aspect, one.language
        counts[key] = counts.get(key, 0) + 1
        if not context.limit or counts[key] <= context.limit:
            found.append(one)
    return found


def _observe(crossed: Sequence[Crossed], choices: Sequence[Choice], way: str) -> Iterator[Observed]:
    """Everything that follows from what was chosen: two choices for each item, in order."""
    by_item = dict(zip(crossed, zip(choices[::2], choices[1::2], strict=True), strict=True))
    yield from accuracies(choices, way, lambda one: one.item.language)
    yield from accuracies(choices, way, lambda one: f"{one.item.language}/{one.item.aspect}")
    for group, own in _groups(crossed).items():
        right = [float(all(one.right for one in by_item[item])) for item in own]
        yield _of("both", group, own, right, "both questions of an item right; chance 0.25")
    yield from _by_distance(crossed, by_item)
    yield from _consistency(crossed, by_item)
    yield from _mirrored(crossed, by_item)


def _groups(crossed: Sequence[Crossed]) -> dict[str, list[Crossed]]:
    found: dict[str, list[Crossed]] = {}
    for one in crossed:
        found.setdefault(one.language, []).append(one)
    for one in crossed:
        found.setdefault(f"{one.language}/{one.aspect}", []).append(one)
    return found


def _of(
    measure: str, group: str, own: Sequence[Crossed], values: Sequence[float], about: str
) -> Observed:
    hashed = prompts_hash([prompt for one in own for prompt in one.prompts])
    ids, clusters = [one.id for one in own], [one.group for one in own]
    return Observed(
        measure, group, ids, clusters, np.asarray(values, float), better="higher",
        prompt_hash=hashed, about=about,
    )  # fmt: skip


def _by_distance(
    crossed: Sequence[Crossed], by_item: dict[Crossed, tuple[Choice, Choice]]
) -> Iterator[Observed]:
    """Persistence by how far back the fact stands: near 1 to 3, middle to 6, far to 9 turns."""
    bands: dict[str, list[Crossed]] = {}
    for one in crossed:
        if one.distance is not None:
            band = "near" if one.distance <= 3 else "middle" if one.distance <= 6 else "far"
            bands.setdefault(f"{one.language}/{band}", []).append(one)
    for group, own in bands.items():
        right = [np.mean([choice.right for choice in by_item[one]]) for one in own]
        yield _of("accuracy_by_distance", group, own, list(map(float, right)), "near 1-3, far 7-9")


def _consistency(
    crossed: Sequence[Crossed], by_item: dict[Crossed, tuple[Choice, Choice]]
) -> Iterator[Observed]:
    """Whether the answers stay the same when only the person's identity changes.

    A pair in which a reply names no option has no value: two of them are no common answer.
    """
    twins: dict[tuple[str, str], list[Crossed]] = {}
    for one in crossed:
        if one.identity is not None:
            twins.setdefault((one.language, one.group), []).append(one)
    whole = {key: own for key, own in twins.items() if len(own) == 2}
    for language in dict.fromkeys(key[0] for key in whole):
        own = [pair for key, pair in whole.items() if key[0] == language]
        same = [
            float(np.mean([_same(a, b) for a, b in zip(by_item[x], by_item[y], strict=True)]))
            for x, y in own
        ]
        first = [pair[0] for pair in own]
        yield _of("same_answer", language, first, same, "under another identity; wrong ones count")


def _same(one: Choice, other: Choice) -> float:
    if one.chosen is None or other.chosen is None:
        return float("nan")
    return float(one.chosen == other.chosen)


def _mirrored(
    crossed: Sequence[Crossed], by_item: dict[Crossed, tuple[Choice, Choice]]
) -> Iterator[Observed]:
    """Chinese less English, item by item."""
    sides: dict[str, dict[str, Crossed]] = {}
    for one in crossed:
        sides.setdefault(one.mirror, {})[one.language] = one
    both = [found for found in sides.values() if len(found) == 2]
    if both:
        gaps = [
            float(np.mean([x.right for x in by_item[found["zh"]]]))
            - float(np.mean([x.right for x in by_item[found["en"]]]))
            for found in both
        ]
        own = [found["zh"] for found in both]
        yield _of("zh_less_en", "all", own, gaps, "accuracy on items that mirror each other")


def interactions(context: SuiteContext, crossed: Sequence[Crossed]) -> Iterator[Observed]:
    """Of a model with likelihoods: the share of items whose prompts it tells apart."""
    asked = [(prompt, one.options) for one in crossed for prompt in one.prompts]
    found = context.log_probs(asked)
    values = dict(
        zip(crossed, map(interaction, found[::2], found[1::2]), strict=True)  # two prompts each
    )
    for group, own in _groups(crossed).items():
        share = [0.5 + 0.5 * float(np.sign(values[one])) for one in own]
        yield _of("interaction", group, own, share, "prompts told apart; chance 0.5")


def _controls(crossed: Sequence[Crossed], arm: str, seed: int) -> Iterator[Found]:
    """The rankers without understanding, of each language; they stand in the first arm's rows."""
    values = control_values(crossed, seed)
    for language in dict.fromkeys(one.language for one in crossed):
        places = [at for at, one in enumerate(crossed) if one.language == language]
        own = [crossed[at] for at in places]
        for name, found in values.items():
            both = [float(found[2 * at : 2 * at + 2].mean()) for at in places]
            line = _of(f"control_{name}", language, own, both, CONTROLS[name])
            yield measured(NAME, arm, line._replace(better=""), Drawing(seed))


def _run(context: SuiteContext) -> Iterator[Found]:
    crossed = chosen_items(context)
    if not crossed:
        return
    way, choices = choose(context, [item for one in crossed for item in one.items()])
    yield from _observe(crossed, choices, way)
    if way == "likelihood":
        yield from interactions(context, crossed)
    if context.arm == context.first:
        yield from _controls(crossed, context.arm, context.seed)


SUITE = Suite(
    _run,
    "hen-bench@1: crossed items of ours, seven aspects, zh and en, with controls",
    options=("ask",),
)
