"""A cause told early, and asked for after talk of other things: what is left of it by distance.

Made from the cause items of hen-bench: the first message tells what happened, `distance` exchanges
about something else follow, then the question. 0 is the item itself.
"""

from collections.abc import Mapping, Sequence

from hen_jax.empathy.labels import Language
from hen_jax.measures.bench import Crossed
from hen_jax.measures.choices import ChoiceItem
from hen_jax.text.conversation import Message

DISTANCES = (0, 2, 5, 9)

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
    found = []
    for item in crossed.items():
        text = item.messages[0].content
        told, asked = _parted(text, item.language)
        talk: list[Message] = []
        for user, assistant in FILLERS[item.language][:distance]:
            talk += [Message("user", user), Message("assistant", assistant)]
        space = "" if item.language == "zh" else " "
        messages = (
            (Message("user", text),)
            if not distance
            else (
                Message("user", told),
                Message("assistant", _NOTED[item.language]),
                *talk,
                Message("user", f"{_BACK[item.language]}{space}{asked}"),
            )
        )
        name = f"{item.id}@{distance}"
        found.append(
            ChoiceItem(
                name,
                item.group,
                f"cause@{distance}",
                messages,
                item.options,
                item.answer,
                item.language,
            )
        )
    return found[0], found[1]


def _parted(text: str, language: Language) -> tuple[str, str]:
    """What was told, and the last two sentences: what was seen, and the question."""
    marks = "。？！" if language == "zh" else ".?!"
    ends = [at for at, letter in enumerate(text[:-1]) if letter in marks]
    cut = ends[-2] + 1 if len(ends) > 1 else 0
    return text[:cut].strip(), text[cut:].strip()
