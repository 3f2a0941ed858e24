"""A writer for `hen synthesize` without a model: replies depend on what is asked alone."""

import json
import random
import re
from collections.abc import Sequence

from hen_jax.text.conversation import Message, Reply

WORDS = {
    "en": re.findall(
        r"\w+",
        "bread river ladder window garden ticket morning letter kettle bridge pencil harbour "
        "blanket corner market engine winter saddle button lantern",
    ),
    "zh": re.findall(
        r"\w+", "面包 河边 梯子 窗户 院子 车票 早上 来信 水壶 石桥 铅笔 港口 毯子 拐角 集市"
    ),
}
MARK = {"en": ("Stay with it:", "In short:"), "zh": ("慢慢来，", "总之，")}


def writer(language: str = "en", judge=None):
    """`speaker(seed)`: sentences drawn by the conversation; the two branches begin differently."""

    def chat(asked: Sequence[Sequence[Message]]) -> list[Reply]:
        return [_reply(messages, language, judge) for messages in asked]

    return lambda seed: chat


def _reply(messages: Sequence[Message], language: str, judge) -> Reply:
    text = messages[-1].content
    if re.search(r"<<<[0-9a-f]{12}", text):
        return Reply((judge or right_judge)(text, language), 9)
    draw = random.Random(json.dumps([[one.role, one.content] for one in messages]))
    joint = {"en": " ", "zh": ""}[language]
    said = joint.join(draw.choices(WORDS[language], k=12))
    steered = messages[0].role == "system" and messages[-1].role == "user"
    is_reply = steered and "{" not in messages[0].content and _is_assistant(messages, language)
    if is_reply:
        said = MARK[language][_is_warm(messages, language)] + joint + said
    return Reply(said + {"en": ".", "zh": "。"}[language], 12)


def _is_assistant(messages: Sequence[Message], language: str) -> bool:
    return {"en": "Answer the person's last message", "zh": "请回复对方"}[language] in (
        messages[0].content
    )


def _is_warm(messages: Sequence[Message], language: str) -> int:
    """0 for the branch that keeps to the pattern, 1 for the other."""
    return 0 if {"en": "Empathy wanted", "zh": "需要的共情"}[language] in messages[0].content else 1


def right_judge(text: str, language: str) -> str:
    """Prefers what begins as the empathetic branch does, and gives it full marks."""
    shown = re.findall(r"<<<([0-9a-f]{12})\n(.*?)\n\1>>>", text, re.DOTALL)[1:]
    good = [MARK[language][0] in one for _, one in shown]
    if len(shown) == 1:
        return json.dumps({"score": 5 if good[0] else 2})
    return json.dumps({"winner": "A" if good[0] and not good[1] else "B" if good[1] else "tie"})
