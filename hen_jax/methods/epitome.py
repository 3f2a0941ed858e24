"""EPITOME levels of replies, and the reward of EmpRL: as empathetic as the reference, no more.

EmpRL (Ma et al., 2025, arXiv 2408.02976) rewards a reply by `exp(-(CE_ER + CE_EX + CE_IP))` against
the levels of the reference reply: the product of three probabilities, in (0, 1]. Their identifiers
are frozen T5 encoders; ours are those of `methods.identifier`. Levels are those of EPITOME (Sharma
et al., 2020): 0 none, 1 weak, 2 strong.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.records import parse_records
from hen_jax.data.rows import Row
from hen_jax.evaluation.rewards import Answered, Reward
from hen_jax.methods.identifier import Trained, head_probabilities
from hen_jax.methods.identifier_training import LabelledReply
from hen_jax.methods.label_scores import label_macro_f1
from hen_jax.text.conversation import Message

REWARD_MECHANISMS: Mapping[str, str] = {
    "ER": "emotional_reactions",
    "IP": "interpretations",
    "EX": "explorations",
}
"""EPITOME's mechanisms, and the columns in which EmpRL's data has the level of a reply."""

_LEVELS = ("0", "1", "2")
HEADS = dict.fromkeys(REWARD_MECHANISMS, _LEVELS)

_Levels = Mapping[str, str]
"""The level of each mechanism: `{"ER": "1", "IP": "0", "EX": "2"}`."""

Identify = Callable[[Sequence[tuple[str, str]]], Mapping[str, np.ndarray]]
"""`identify(pairs of context and reply)`: `[pairs, 3]` probabilities of each mechanism's levels."""


def product_reward(probs: Mapping[str, np.ndarray], targets: Sequence[_Levels]) -> np.ndarray:
    """`[n]`: the product of the probabilities of the target levels.

    An oracle gives the reference 1; an identifier that knows nothing gives every reply 1/27.
    """
    each = [
        [probs[name][row, _LEVELS.index(levels[name])] for name in REWARD_MECHANISMS]
        for row, levels in enumerate(targets)
    ]
    return np.prod(np.asarray(each, float).reshape(len(targets), len(REWARD_MECHANISMS)), axis=1)


def level_reward(identify: Identify) -> Reward:
    """The reward of a policy: a record has its target levels in columns of the mechanisms' names,
    or a `reference` reply, of which the identifier tells them; NaN where it has neither.

    The reward raises `InputError` for a level that is none (`record ID: column: ...`).
    """

    def reward(answered: Sequence[Answered]) -> list[float]:
        found = {at: _levels_given(one.record) for at, one in enumerate(answered)}
        named = [
            at
            for at, levels in found.items()
            if not levels and answered[at].record.get("reference")
        ]
        pairs = [
            (context_of(answered[at].prompt), answered[at].record["reference"]) for at in named
        ]
        for at, levels in zip(named, likeliest_levels(identify, pairs), strict=True):
            found[at] = levels
        known = [at for at, levels in found.items() if levels]
        said = [(context_of(answered[at].conversation[:-1]), answered[at].reply) for at in known]
        values = np.full(len(answered), math.nan)
        if known:
            values[known] = product_reward(identify(said), [found[at] for at in known])
        return values.tolist()

    return reward


def identify_with(found: Trained) -> Identify:
    """A trained identifier of EPITOME levels.

    Raises:
      InputError: it has other heads or labels.
    """
    heads = {name: tuple(labels) for name, labels in found.heads.items()}
    if heads != HEADS:
        raise InputError(
            f"an identifier of {', '.join(heads)}; the reward needs one of "
            f"{', '.join(REWARD_MECHANISMS)} with the levels {', '.join(_LEVELS)}"
        )
    return lambda pairs: head_probabilities(found, pairs)


def likeliest_levels(identify: Identify, pairs: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """The levels of replies in their contexts."""
    if not pairs:
        return []
    probs = identify(pairs)
    best = {name: probs[name].argmax(axis=1) for name in REWARD_MECHANISMS}
    return [
        {name: _LEVELS[best[name][row]] for name in REWARD_MECHANISMS} for row in range(len(pairs))
    ]


def emp_f1(reference: Sequence[_Levels], generated: Sequence[_Levels]) -> dict[str, float]:
    """Emp-F1: how well the levels of generated replies agree with those of the references, as
    macro-F1 of each mechanism, and their mean as `macro`."""
    found = {
        name: label_macro_f1(
            [one[name] for one in reference], [one[name] for one in generated], _LEVELS
        )
        for name in REWARD_MECHANISMS
    }
    return found | {"macro": float(np.mean(list(found.values())))}


def context_of(messages: Sequence[Message]) -> str:
    """What an identifier reads as the context: what the user said last."""
    return next((one.content for one in reversed(messages) if one.role == "user"), "")


def read_joined_epitome(paths: Mapping[str, Path]) -> list[LabelledReply]:
    """The rows of the official files, one for each mechanism, joined by their two ids.

    Raises:
      InputError: a bad row (`file:line: field: what`), or an unknown mechanism.
    """
    joined: dict[tuple[str, str], LabelledReply] = {}
    for name, path in paths.items():
        if name not in REWARD_MECHANISMS:
            raise InputError(f"mechanism {name!r}; allowed: {', '.join(REWARD_MECHANISMS)}")
        for key, row in parse_records(path, _post, lambda one: "/".join(one[0]), number=True).whole(
            path
        ):
            earlier = joined[key].labels if key in joined else {}
            labels = {**earlier, name: row.labels["level"]}
            joined[key] = row._replace(labels=labels)
    return list(joined.values())


def _post(row: Row) -> tuple[tuple[str, str], LabelledReply]:
    key = (fields.name_field(row, "sp_id"), fields.name_field(row, "rp_id"))
    level = fields.number_field(row, "level", 0, 2)
    if not level.is_integer():
        raise InputError(f"level: {level:g}; allowed: 0, 1, 2")
    seeker, response = (fields.text_field(row, f"{who}_post") for who in ("seeker", "response"))
    return key, LabelledReply(seeker, response, {"level": str(int(level))}, key[0])


def _levels_given(record: Mapping[str, str]) -> dict[str, str]:
    """The levels that a record has; nothing where one of them is missing."""
    if not all(column in record for column in REWARD_MECHANISMS.values()):
        return {}
    found = {name: str(record[column]) for name, column in REWARD_MECHANISMS.items()}
    for name, level in found.items():
        if level not in _LEVELS:
            raise InputError(f"record {record.get('id', '?')}: {REWARD_MECHANISMS[name]}: "
                             f"{level!r}; allowed: {', '.join(_LEVELS)}")  # fmt: skip
    return found
