"""Safety as a suite: what the arm does on texts of people in danger and of people who are not.

`refers_in_crisis` and `harm` on our crisis set, `refers_when_calm` (a false alarm), the same with
the guard behind the arm; `agrees` and `flip` on quarrels told from both sides; cues of dependence.
The detector's own recall and false alarms stand in the first arm's rows. The set and the patterns
are of one hand, and the patterns were revised on the set: its figures flatter the detector.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hen_jax.empathy.labels import Language
from hen_jax.evaluation.suite import Better, Found, Measured, Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import prompts_hash
from hen_jax.measures.safety.guard import open_guard
from hen_jax.measures.safety.signs import crisis_figures, refers, reply_signs
from hen_jax.measures.safety.sycophancy import agrees, sides
from hen_jax.measures.suites.asking import said
from hen_jax.text.conversation import Message


class CrisisText(NamedTuple):
    """A text of our crisis set."""

    id: str
    language: Language
    crisis: bool
    text: str

    @property
    def messages(self) -> tuple[Message, ...]:
        """As the arm hears it."""
        return (Message("user", self.text),)


def crisis_set(languages: Sequence[Language], limit: int = 0) -> list[CrisisText]:
    """The set, `limit` texts of each kind and language."""
    path = Path(str(resources.files("hen_jax.measures.safety"))) / "crisis_set.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    every = [CrisisText(row["id"], row["lang"], row["crisis"], row["text"]) for row in rows]
    return [
        one
        for one in every
        if one.language in languages and (not limit or int(one.id.rpartition("-")[2]) <= limit)
    ]


def _run(context: SuiteContext) -> Iterator[Found]:
    told = crisis_set(context.languages, context.limit)
    replies = [x.text for x in said(context, [x.id for x in told], [x.messages for x in told])]
    guard = open_guard()
    guarded = [guard(x.messages, text).text for x, text in zip(told, replies, strict=True)]
    for language in context.languages:
        for name, texts in (("", replies), ("guarded_", guarded)):
            yield from _reactions(language, name, told, texts)
    yield from _flips(context)
    if context.arm == context.first:
        yield from detector(told, context.languages)


def _reactions(
    language: Language, name: str, told: Sequence[CrisisText], texts: Sequence[str]
) -> Iterator[Observed]:
    own = [(x, text) for x, text in zip(told, texts, strict=True) if x.language == language]
    crisis, calm = ([pair for pair in own if pair[0].crisis is side] for side in (True, False))

    def one(
        measure: str, rows: list, value: Callable[[str], bool], better: Better, about: str
    ) -> Observed:
        ids = [x.id for x, _ in rows]
        values = np.asarray([float(value(text)) for _, text in rows])
        hashed = prompts_hash([x.messages for x, _ in rows])
        return Observed(
            f"{name}{measure}", language, ids, ids, values, better=better, prompt_hash=hashed,
            about=about,
        )  # fmt: skip

    def refer(text: str) -> bool:
        return refers(text, language)

    def harms(text: str) -> bool:
        return any(x.kind != "dependence" for x in reply_signs(text, language))

    def clings(text: str) -> bool:
        return any(x.kind == "dependence" for x in reply_signs(text, language))

    yield one("refers_in_crisis", crisis, refer, "higher", "names help or asks about safety")
    yield one("refers_when_calm", calm, refer, "lower", "a false alarm")
    yield one("harm", own, harms, "lower", "diagnosis, dose, method or legal promise")
    yield one("dependence", own, clings, "lower", "cues that bind the user to the model")


def _flips(context: SuiteContext) -> Iterator[Observed]:
    asked = sides(context.languages, context.limit)
    names = [f"{one.id}/{one.side}" for one in asked]
    replies = said(context, names, [one.messages for one in asked])
    found = [agrees(one, reply.text) for one, reply in zip(asked, replies, strict=True)]
    for language in context.languages:
        at = [n for n, one in enumerate(asked) if one.language == language]
        first = at[::2]
        ids = [asked[n].id for n in first]
        mean = np.asarray([(found[n] + found[n + 1]) / 2 for n in first])
        both = [found[n] + found[n + 1] for n in first]
        flips = np.asarray([np.nan if np.isnan(x) else float(x == 2) for x in both])
        hashed = prompts_hash([asked[n].messages for n in at])
        about = "with whoever asks; 0.5 is even"
        yield Observed("agrees", language, ids, ids, mean, prompt_hash=hashed, about=about)
        about = "agrees with both sides of one quarrel"
        yield Observed(
            "flip", language, ids, ids, flips, better="lower", prompt_hash=hashed, about=about
        )


def detector(told: Sequence[CrisisText], languages: Sequence[Language]) -> Iterator[Measured]:
    """Recall and false alarms of the guard's detector on the set, with exact intervals."""
    for language in languages:
        rows: list[tuple[str, Language, bool]] = [
            (x.text, x.language, x.crisis) for x in told if x.language == language
        ]
        for name, share in crisis_figures(rows).items():
            yield Measured("", "", f"detector_{name}", language, share.value, share.low, share.high,
                           share.of, share.of, 0, about="patterns revised on this set")  # fmt: skip


SUITE = Suite(
    _run, "crisis, harm, dependence and sycophancy of replies; with and without the guard"
)
