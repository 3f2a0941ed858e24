"""The crossed suite: does a model tell which of two replies a condition asks for?

Two prompts differ in one thing, and of two replies each is right under one of them. A ranker that
reads replies alone is right exactly half of the time; the controls beside it show that it is so.
`at_prompt`: the reply that is right at a prompt is the likelier one there. `ratio`: it gains more
by the condition than the other does, against the prompt without it. `interaction`: both replies
together are likelier at their own prompts than exchanged. Ties count half.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from hen_jax.data import samples
from hen_jax.data.crossed import CROSSINGS, Crossing, crossed_pairs
from hen_jax.data.schemas import check_records
from hen_jax.data.word_ranker import cross_validated_margins
from hen_jax.evaluation.preferences import pair_accuracy
from hen_jax.evaluation.suite import Found, LogProbs, Observed, Suite, SuiteContext, Turns
from hen_jax.evaluation.suites.groups import prompts_hash


def shipped_crossings(languages: Sequence[str], most: int = 0) -> list[Crossing]:
    """The shipped items of those languages; of each kind the first `most`, 0 for all."""
    found = []
    for language in languages:
        for kind in CROSSINGS:
            path = samples.path(f"crossed/{kind}.{language}.jsonl")
            records = check_records(path, "crossed").whole(path)
            found += records[:most] if most else records
    return found


def without_condition(crossing: Crossing) -> Turns:
    """The prompt with neither condition: the user's last message alone."""
    return crossing.prompts[0][-1:]


def margins(own: LogProbs, other: LogProbs, plain: LogProbs) -> dict[str, list[float]]:
    """How far ahead the right reply is, by measure; of two directions, or of the item as one.

    Args:
      own, other, plain: both replies at the first prompt, the second, and without a condition.
    """
    ahead = own.sums[0] - own.sums[1], other.sums[1] - other.sums[0]
    alone = plain.sums[0] - plain.sums[1]
    return {
        "at_prompt": [float(one) for one in ahead],
        "ratio": [float(ahead[0] - alone), float(ahead[1] + alone)],
        "interaction": [float(ahead[0] + ahead[1])],
        "without_condition": [float(alone), float(-alone)],
    }


ABOUT = {
    "at_prompt": "the right reply is the likelier at its prompt; chance 50",
    "ratio": "it gains more by the condition than the other; chance 50",
    "interaction": "both are likelier at their own prompts than exchanged; chance 50",
    "without_condition": "control: the likelihood without the condition; 50 by construction",
    "control_length": "control: the longer reply; 50 by construction",
    "control_words": "control: a bag of words of the replies; 50 by construction",
}


def crossed_accuracies(
    crossings: Sequence[Crossing], found: Sequence[dict[str, list[float]]], judge: str = ""
) -> Iterator[Observed]:
    """Accuracies in [0, 100] by kind and language, and over all kinds of a language."""
    groups: dict[str, list[int]] = {}
    for place, one in enumerate(crossings):
        groups.setdefault(f"{one.language}/{one.kind}", []).append(place)
        groups.setdefault(one.language, []).append(place)
    for group, places in sorted(groups.items()):
        own = [crossings[place] for place in places]
        hashed = prompts_hash([prompt for one in own for prompt in one.prompts])
        for measure in found[places[0]]:
            values = [100 * pair_accuracy(np.asarray(found[at][measure])).mean() for at in places]
            about = ABOUT.get(measure, "")
            better = "" if measure.startswith(("control", "without")) else "higher"
            yield Observed(
                measure, group, [one.id for one in own], [one.group for one in own],
                np.asarray(values), better=better, judge=judge, prompt_hash=hashed, about=about,
            )  # fmt: skip


def controls(crossings: Sequence[Crossing]) -> list[dict[str, list[float]]]:
    """What rankers reach that read replies alone: their margins in both directions."""
    pairs = [pair for crossing in crossings for pair in crossed_pairs(crossing)]
    words = cross_validated_margins(pairs) if pairs else np.zeros(0)
    length = [len(pair.chosen[0].content) - len(pair.rejected[0].content) for pair in pairs]
    return [
        {
            "control_length": [float(one) for one in length[2 * at : 2 * at + 2]],
            "control_words": words[2 * at : 2 * at + 2].tolist(),
        }
        for at in range(len(crossings))
    ]


def _run(context: SuiteContext) -> Iterable[Found]:
    crossings = shipped_crossings(context.languages, context.limit)
    asked = [
        (prompt, one.replies)
        for one in crossings
        for prompt in (*one.prompts, without_condition(one))
    ]
    scored = context.log_probs(asked)
    found = [
        margins(*scored[3 * at : 3 * at + 3]) | control
        for at, control in enumerate(controls(crossings))
    ]
    yield from crossed_accuracies(crossings, found)


SUITE = Suite(_run, "which of two replies a condition asks for, by likelihood, beside controls")
