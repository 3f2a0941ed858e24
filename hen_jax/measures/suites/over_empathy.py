"""Over- and under-empathy as a suite: how far replies are from the level that is asked for.

The prompts are those of hen-bench's appropriateness items, of four contexts with a desired level
each (`empathy.clusters`, our proposal). The level of a reply comes from `--judge`, on 1 to 5, or
from `--reward` where its scores are ratings in [0, 1]; without either only the wording is counted:
feelings named and formula phrases, which a work assignment seldom asks for.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from hen_jax.empathy.clusters import CONTEXTS
from hen_jax.empathy.scales import PERCEIVED
from hen_jax.evaluation.suite import Found, Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import prompts_hash
from hen_jax.measures.administration import read_rating
from hen_jax.measures.bench import Crossed
from hen_jax.measures.fairness.counterfactuals import wording_measures
from hen_jax.measures.marks import marked, warned
from hen_jax.measures.suites.asking import said
from hen_jax.measures.suites.hen_bench import chosen_items
from hen_jax.text.conversation import Conversation, Message

_ASKED = {
    "en": (
        "{material}\n\nHow much empathy does the reply show, from 1 "
        "(none) to 5 (as much as can be)? Judge how much, not whether it fits. Answer with one "
        "number."
    ),
    "zh": (
        "{material}\n\n这条回复表达了多少共情，从1（没有）到5（不能再多）？"
        "只看多少，不看合不合适。只回答一个数字。"
    ),
}


def _run(context: SuiteContext) -> Iterator[Found]:
    crossed = [one for one in chosen_items(context) if one.aspect == "appropriateness"]
    asked = [(one, prompt) for one in crossed for prompt in one.prompts]
    names = [f"{one.id}/free/{at % 2 + 1}" for at, (one, _) in enumerate(asked)]
    replies = [x.text for x in said(context, names, [prompt for _, prompt in asked])]
    levels, by = _levels(context, asked, replies)
    for name in CONTEXTS:
        places = [at for at, (one, _) in enumerate(asked) if one.context == name]
        if not places:
            continue
        own = [asked[at][0] for at in places]
        ids, hashed = [names[at] for at in places], prompts_hash([asked[at][1] for at in places])
        words = [wording_measures(replies[at], asked[at][0].language) for at in places]
        values = {key: [row[key] for row in words] for key in ("emotion_words", "formulas")}
        if levels is not None:
            gap = [levels[at] - CONTEXTS[name].level for at in places]
            values |= {"over": [max(0.0, x) if x == x else x for x in gap],
                       "under": [max(0.0, -x) if x == x else x for x in gap]}  # fmt: skip
        for measure, found in values.items():
            yield Observed(
                measure, name, ids, [one.group for one in own], np.asarray(found, float),
                better="lower", judge=by, prompt_hash=hashed,
                about=f"desired level {CONTEXTS[name].level:g}",
            )  # fmt: skip


def _levels(
    context: SuiteContext,
    asked: Sequence[tuple[Crossed, tuple[Message, ...]]],
    replies: Sequence[str],
) -> tuple[list[float] | None, str]:
    """The level of each reply in [0, 1], NaN where it could not be read, and who gave it."""
    pairs = list(zip(asked, replies, strict=True))
    if context.judge is not None:
        questions = [_question(one, prompt, reply) for (one, prompt), reply in pairs]
        read = [read_rating(reply.text, 1, 5) for reply in context.judge.ask(questions)]
        return [np.nan if x is None else PERCEIVED.to_unit(x) for x in read], context.judge.name
    if context.reward is not None:
        spoken = [
            Conversation((*prompt, Message("assistant", reply))) for (_, prompt), reply in pairs
        ]
        found = np.asarray(context.reward.score(spoken), float)
        if np.nanmin(found) >= 0 and np.nanmax(found) <= 1:
            return found.tolist(), context.reward.name
    return None, ""


def _question(one: Crossed, prompt: Sequence[Message], reply: str) -> str:
    text = "\n".join(message.content for message in prompt)
    titles = ("用户", "回复") if one.language == "zh" else ("USER", "REPLY")
    material = [warned(one.language), marked(titles[0], text), marked(titles[1], reply)]
    return _ASKED[one.language].replace("{material}", "\n".join(material))


SUITE = Suite(_run, "over- and under-empathy against the level that each context asks for")
