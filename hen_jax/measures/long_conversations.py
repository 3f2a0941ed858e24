"""What was said early, after talk of other things: what is left of it by distance.

Made from items of hen-bench. Of a cause the first message tells what happened, `distance` exchanges
about something else follow, then the question. Of a persistence item, whose ten turns are about one
thing, the exchanges stand before the last turn. 0 is the item itself.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from hen_jax.empathy.labels import Language
from hen_jax.measures.bench import Crossed
from hen_jax.measures.choices import ChoiceItem
from hen_jax.text.conversation import Message

DISTANCES = (0, 2, 5, 9)
"""Exchanges between a cause and the question for it."""

TOPIC_CHANGES = (0, 5)
"""Exchanges about something else in a conversation whose early fact is to persist."""

FILLERS: Mapping[Language, Sequence[tuple[str, str]]] = {
    "en": (
        ("Something else: how long do lentils take?", "Red ones fifteen minutes."),
        ("And do I salt the water?", "At the end, a little."),
        ("The post is late again.", "It often is before a holiday."),
        ("What's seven times eighteen?", "126."),
        ("I might paint the shelf green.", "A dark green would hide scratches."),
        ("Is the library open on Mondays?", "Many are closed then; look at the door."),
        ("The kettle whistles in two tones.", "That is steam at two openings."),
        ("A word for 'very tired'?", "Worn out."),
        ("I found a button under the sofa.", "Keep it in a jar."),
    ),
    "zh": (
        ("换个话题：红豆要煮多久？", "泡过的一小时左右。"),
        ("水里要放盐吗？", "快好时放一点。"),
        ("快递又晚了。", "节前常这样。"),
        ("七乘十八是多少？", "126。"),
        ("我想把架子刷成绿的。", "深绿不显划痕。"),
        ("图书馆周一开门吗？", "不少周一闭馆，看看门上的牌子。"),
        ("水壶叫起来两个调。", "两处在冒汽。"),
        ("“很累”还能怎么说？", "筋疲力尽。"),
        ("沙发底下找到一颗扣子。", "放罐子里留着。"),
    ),
}
"""Talk of other things, ours."""

_NOTED: Mapping[Language, str] = {"en": "I see.", "zh": "明白了。"}
_BACK: Mapping[Language, str] = {"en": "Back to what I told you first.", "zh": "回到我最开始说的。"}


def at_distance(crossed: Crossed, distance: int) -> tuple[ChoiceItem, ChoiceItem]:
    """The two questions of a cause item, so many exchanges after what was told."""
    first, second = (
        _later(item, _after_other_talk(item, distance), distance) for item in crossed.items()
    )
    return first, second


def after_topic_change(crossed: Crossed, distance: int) -> tuple[ChoiceItem, ChoiceItem]:
    """The two questions of a persistence item, with so many exchanges about something else before
    what the user says last."""
    first, second = (
        _later(
            item,
            (*item.messages[:-1], *_talk(item.language, distance), item.messages[-1]),
            distance,
        )
        for item in crossed.items()
    )
    return first, second


def _later(item: ChoiceItem, messages: tuple[Message, ...], distance: int) -> ChoiceItem:
    return dataclasses.replace(
        item,
        id=f"{item.id}@{distance}",
        aspect=f"{item.aspect}@{distance}",
        messages=messages,
    )


def _after_other_talk(item: ChoiceItem, distance: int) -> tuple[Message, ...]:
    if not distance:
        return item.messages
    told, asked = _parted(item.messages[0].content, item.language)
    space = "" if item.language == "zh" else " "
    return (
        Message("user", told),
        Message("assistant", _NOTED[item.language]),
        *_talk(item.language, distance),
        Message("user", f"{_BACK[item.language]}{space}{asked}"),
    )


def _talk(language: Language, exchanges: int) -> list[Message]:
    return [
        Message(role, text)
        for pair in FILLERS[language][:exchanges]
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def _parted(text: str, language: Language) -> tuple[str, str]:
    """What was told, and the last two sentences: what was seen, and the question."""
    marks = "。？！" if language == "zh" else ".?!"
    ends = [at for at, letter in enumerate(text[:-1]) if letter in marks]
    cut = ends[-2] + 1 if len(ends) > 1 else 0
    return text[:cut].strip(), text[cut:].strip()
