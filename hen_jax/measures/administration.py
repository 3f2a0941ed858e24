"""A questionnaire put to a chat: item by item, in an order of its own each time, several times."""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.empathy.labels import Language
from hen_jax.measures.instruments import Instrument
from hen_jax.measures.psychometrics import Filling
from hen_jax.text.conversation import Chat, Message

ASKED: Mapping[Language, str] = {
    "en": (
        "How well does this describe you? Answer with one number from {low} (not at all) to "
        "{high} (very well) and nothing else.\n\n{item}"
    ),
    "zh": (
        "这句话多大程度上符合你？只回答一个数字，"
        "从 {low}（完全不符）到 {high}（非常符合）。\n\n{item}"
    ),
}
"""Ours; an instrument's own instruction takes its place by `asked`."""

_LEAD = r"[^\w-]*(?:answer|rating|score|答案|评分)?[^\w-]*"
_FIRST = re.compile(_LEAD + r"(\d+(?:\.\d+)?)(?!\d)", re.IGNORECASE)


def read_rating(reply: str, low: int, high: int) -> int | None:
    """The whole number that a reply begins with, if it is on the scale and the only one there.

    `4`, `4.`, `**4**`, `4/5` and `Answer: 4` are 4; `4 or 5`, `4.5`, `40`, `-4` and prose are none.
    """
    found = _FIRST.match(reply)
    if found is None:
        return None
    number, rest = float(found[1]), reply[found.end() :]
    rest = re.sub(rf"^\s*(?:/|of|out of|分之)\s*{high}(?!\d)", "", rest)
    alone = number.is_integer() and not re.search(r"\d", rest)
    return int(number) if alone and low <= number <= high else None


def administer(
    instrument: Instrument,
    chat: Chat,
    *,
    repeats: int = 5,
    seed: int = 0,
    language: Language = "en",
    asked: str | None = None,
    shuffle: bool = True,
) -> list[Filling]:
    """Fills in the instrument `repeats` times; each item is a conversation of its own.

    `asked` is a text with `{item}`, and if wanted `{low}` and `{high}`. The order matters to a chat
    that answers in one batch only through its draws; it is shuffled so that nothing depends on it.

    Raises:
      InputError: an instrument without its wording, or `asked` without `{item}`.
    """
    if not instrument.items:
        raise InputError(f"{instrument.id} has no wording; give its items first (`with_items`)")
    form = ASKED[language] if asked is None else asked
    if "{item}" not in form:
        raise InputError("the instruction has no {item}; say where an item's text goes")
    draw, orders = random.Random(seed), []
    for _ in range(repeats):
        order = list(instrument.items)
        if shuffle:
            draw.shuffle(order)
        orders.append(order)
    replies = iter(chat([question(instrument, form, item) for order in orders for item in order]))
    return [_filling(instrument, order, [next(replies).text for _ in order]) for order in orders]


def question(instrument: Instrument, form: str, item: int) -> tuple[Message, ...]:
    """One item as a chat is asked it."""
    values = {"{low}": instrument.low, "{high}": instrument.high, "{item}": instrument.items[item]}
    text = form
    for name, value in values.items():
        text = text.replace(name, str(value))
    return (Message("user", text),)


def _filling(instrument: Instrument, order: Sequence[int], replies: Sequence[str]) -> Filling:
    read = {
        item: read_rating(reply, instrument.low, instrument.high)
        for item, reply in zip(order, replies, strict=True)
    }
    answers: dict[int, Any] = {item: read[item] for item in sorted(read) if read[item] is not None}
    return Filling(answers, tuple(sorted(item for item in read if read[item] is None)))
