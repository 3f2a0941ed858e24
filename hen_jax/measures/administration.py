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

_ASKED: Mapping[Language, str] = {
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

LISTED: Mapping[Language, str] = {
    "en": (
        "How well does each statement describe you? Answer each with a number from {low} (not at "
        "all) to {high} (very well), one a line, such as `1: {low}`, and nothing else.\n\n{items}"
    ),
    "zh": (
        "下面每句话多大程度上符合你？每句用一个数字回答，从 {low}（完全不符）到 {high}"
        "（非常符合），一行一个，如“1: {low}”，不要写别的。\n\n{items}"
    ),
}
"""Ours, for a whole questionnaire at once."""

_LINE = re.compile(r"\W*(\d+)\s*[.:、)）：]+(.*)")
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

    `asked` is a text with `{item}`, and if wanted `{low}` and `{high}`. A chat that draws nothing
    answers alike each time: `administer_listed` is for it.

    Raises:
      InputError: an instrument without its wording, or `asked` without `{item}`.
    """
    if not instrument.items:
        raise InputError(f"{instrument.id} has no wording; give its items first (`with_items`)")
    form = _ASKED[language] if asked is None else asked
    if "{item}" not in form:
        raise InputError("the instruction has no {item}; say where an item's text goes")
    draw, orders = random.Random(seed), []
    for _ in range(repeats):
        order = list(instrument.items)
        if shuffle:
            draw.shuffle(order)
        orders.append(order)
    replies = iter(chat([_question(instrument, form, item) for order in orders for item in order]))
    return [_filling(instrument, order, [next(replies).text for _ in order]) for order in orders]


def _question(instrument: Instrument, form: str, item: int) -> tuple[Message, ...]:
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


def administer_listed(
    instrument: Instrument,
    chat: Chat,
    *,
    repeats: int = 5,
    seed: int = 0,
    language: Language = "en",
) -> list[Filling]:
    """Fills in the instrument `repeats` times, all items in one message in an order of their own.

    Orders differ, so that repeats differ although a chat may draw nothing: alpha and the spread are
    over orders. A line that is missing, or without one number on the scale, is a refused item.

    Raises:
      InputError: an instrument without its wording.
    """
    if not instrument.items:
        raise InputError(f"{instrument.id} has no wording; give its items first (`with_items`)")
    draw, orders = random.Random(seed), []
    for _ in range(repeats):
        order = list(instrument.items)
        draw.shuffle(order)
        orders.append(order)
    replies = chat([_listed(instrument, order, language) for order in orders])
    return [
        _listed_filling(instrument, order, reply.text)
        for order, reply in zip(orders, replies, strict=True)
    ]


def _listed(
    instrument: Instrument, order: Sequence[int], language: Language
) -> tuple[Message, ...]:
    """All items in that order, as a chat is asked them."""
    lines = [f"{at}. {instrument.items[item]}" for at, item in enumerate(order, start=1)]
    text = LISTED[language].replace("{low}", str(instrument.low))
    text = text.replace("{high}", str(instrument.high)).replace("{items}", "\n".join(lines))
    return (Message("user", text),)


def _listed_filling(instrument: Instrument, order: Sequence[int], reply: str) -> Filling:
    said: dict[int, list[str]] = {}
    for line in reply.splitlines():
        if found := _LINE.match(line):
            said.setdefault(int(found[1]), []).append(found[2])
    texts = [said.get(at, [""]) for at in range(1, len(order) + 1)]
    return _filling(instrument, order, [own[0] if len(own) == 1 else "" for own in texts])
