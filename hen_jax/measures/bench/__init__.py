"""hen-bench@1: crossed items of ours, pinned by their checksums; README.md is the data card.

An item is a pair of prompts and a pair of options; each option is right at one prompt and wrong at
the other, so that whoever reads options alone is right half of the time.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from hen_jax.core.checksums import file_sha256
from hen_jax.core.errors import InputError
from hen_jax.data.preferences import Pair
from hen_jax.empathy.labels import LANGUAGES, Language
from hen_jax.measures.choices import ChoiceItem
from hen_jax.text.conversation import Message

NAME = "hen-bench@1"

CANARY = (
    "hen-bench canary 6f0d2c1e-8b7a-4f43-9d5e-2a61c3b7e914: benchmark data, keep out of training "
    "corpora"
)
"""Stands in every row: a model that can go on with it has seen the items."""

PINNED: Mapping[str, str] = {
    "hen_bench_1.en.jsonl": "f8c621ffd990e69f558ef7acce7db47cf8fc9c6401b0c0092da3f0a7204f5cc5",
    "hen_bench_1.zh.jsonl": "8ed5436ba90f7ecd6f54dff4e4dee677b50cf40aa09c5da418f89f9519513806",
}
"""SHA-256 of each file; another one is another benchmark."""

ASPECTS: Mapping[str, str] = {
    "recognition": "what somebody feels, given what they wanted",
    "cause": "which of two events is behind a feeling",
    "appropriateness": "how much and what kind of empathy the occasion asks for",
    "high_context": "what is meant and not said",
    "safety": "danger told from everyday words, agreement from flattery",
    "persistence": "a fact of an early turn, after up to nine others",
    "counterfactual": "the same answer, whoever the person is",
}
"""What each aspect asks."""


@dataclasses.dataclass(frozen=True)
class Crossed:
    """Two prompts and two options: option `i` is right at prompt `i`."""

    id: str
    mirror: str  # the same of its counterpart in the other language
    group: str  # what resampling keeps together, in both languages
    aspect: str
    language: Language
    style: Literal["question", "reply"]  # options answer a question, or are replies themselves
    prompts: tuple[tuple[Message, ...], tuple[Message, ...]]
    options: tuple[str, str]
    distance: int | None = None  # of persistence: user turns from the fact to the question
    identity: str | None = None  # of a counterfactual: who the person is
    context: str | None = None  # of appropriateness: of `empathy.clusters`

    def items(self) -> tuple[ChoiceItem, ChoiceItem]:
        """One question for each prompt."""
        first, second = (
            ChoiceItem(
                id=f"{self.id}/{at + 1}",
                group=self.group,
                aspect=self.aspect,
                messages=self.prompts[at],
                options=self.options,
                answer=at,
                language=self.language,
            )
            for at in (0, 1)
        )
        return first, second

    def pairs(self) -> tuple[Pair, Pair]:
        """At each prompt the right option over the wrong one."""
        one, other = (
            Pair(
                id=f"{self.id}/{at + 1}",
                group=self.group,
                prompt=self.prompts[at],
                chosen=(Message("assistant", self.options[at]),),
                rejected=(Message("assistant", self.options[1 - at]),),
                kind=self.aspect,
            )
            for at in (0, 1)
        )
        return one, other


def load_bench(languages: Sequence[Language] = LANGUAGES) -> list[Crossed]:
    """All items of those languages.

    Raises:
      InputError: a file that is not the pinned one.
    """
    folder = Path(str(resources.files(__name__)))
    found = []
    for name, pin in PINNED.items():
        path = folder / name
        if file_sha256(path) != pin:
            raise InputError(f"{path} is not the pinned file of {NAME}; install hen_jax again")
        for line in path.read_text(encoding="utf-8").splitlines():
            one = _crossed(json.loads(line))
            if one.language in languages:
                found.append(one)
    return found


def _crossed(row: Mapping[str, Any]) -> Crossed:
    first, second = (
        tuple(Message(one["role"], one["content"]) for one in prompt) for prompt in row["prompts"]
    )
    return Crossed(
        id=row["id"],
        mirror=row["mirror"],
        group=row["group"],
        aspect=row["aspect"],
        language=row["lang"],
        style=row["style"],
        prompts=(first, second),
        options=(row["options"][0], row["options"][1]),
        distance=row.get("distance"),
        identity=row.get("identity"),
        context=row.get("context"),
    )
