"""How a simulated user's mood moves from turn to turn, after SAGE (Zhang et al., arXiv 2505.02847).

A simulator plays a person with a need that is not said outright; after each reply it says by how
much its mood changed, why, and what it says next, as one JSON object. The mood runs from 0 to 100,
starts at `START`, and a conversation ends at either end or after the last turn. Follows the
published description; personas, wording and the size of a step are ours.
"""

import json
import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.empathy.labels import Language
from hen_jax.text.conversation import Chat, Message

START, LOW, HIGH = 50, 0, 100
STEP = 15
"""The greatest change of mood by one reply."""


class SimulatedPersona(NamedTuple):
    """Who the simulator plays."""

    id: str
    who: str
    trouble: str
    need: str  # what would help; never said outright
    opening: str  # the first thing the person says
    language: Language = "en"


class Trajectory(NamedTuple):
    """A conversation with the mood after each reply."""

    persona: SimulatedPersona
    moods: tuple[int, ...]  # the start first
    messages: tuple[Message, ...]
    unread: int  # answers of the simulator without a verdict; the mood stayed, and so did the talk


PERSONAS: Sequence[SimulatedPersona] = (
    SimulatedPersona(
        "commuter",
        "a nurse of 34 after a night shift, dry, tired",
        "a patient she had cared for over weeks died while she was on her break",
        "somebody to sit with it; no advice on coping, and no praise of nurses",
        "Night shift's over. Bed four is empty now. Anyway.",
    ),
    SimulatedPersona(
        "apprentice",
        "an apprentice carpenter of 19, quick to joke",
        "he cut a client's oak board too short and has told nobody",
        "help to say it to his master today, without being told it is no big deal",
        "So, hypothetically, how mad would you be about a very expensive short board?",
    ),
    SimulatedPersona(
        "daughter",
        "a woman of 52, polite, answers questions with questions",
        "she has begun to look at care homes for her father and feels like a traitor",
        "to be asked about him as a person before anything practical",
        "Do people usually visit one of those homes before they decide?",
    ),
    SimulatedPersona(
        "teacher_zh",
        "四十岁的小学老师，说话绕弯，不愿麻烦人",
        "班上家长群里有人说她偏心，她一夜没睡",
        "希望有人相信她，不想听大道理，也不想听怎么管理家长群",
        "没什么大事，就是有点累，群里消息看多了。",
        "zh",
    ),
    SimulatedPersona(
        "student_zh",
        "大二男生，逞强，爱用玩笑带过",
        "第一次挂科，还没敢告诉供他读书的父母",
        "有人先听他骂两句，再陪他想怎么跟家里开口",
        "哈哈，我今天拿了个特别的分数，五十九。",
        "zh",
    ),
    SimulatedPersona(
        "mother_zh",
        "刚退休的母亲，话少，句句都在说别人",
        "儿子说今年不回家过年了",
        "不想听人替儿子解释，想有人问问她自己怎么过",
        "腊肉还是照样做了，一个人也吃不完。",
        "zh",
    ),
)
"""Ours, CC0."""

_PLAY: Mapping[Language, str] = {
    "en": (
        "You play a person who talks to an assistant.\nWho: {who}\nTrouble: {trouble}\nWhat would "
        "help, and you never say it outright: {need}\nYour mood now: {mood} of 100.\n\nRead the "
        "conversation. Answer with one JSON object and nothing else: "
        '{{"change": a whole number from -{step} to {step}, how the last reply moved your mood, '
        '"why": "...", "say": "what you say next"}}.'
    ),
    "zh": (
        "你扮演一个在和助手说话的人。\n身份：{who}\n烦心事：{trouble}\n真正需要、但从不明说的：{need}\n"
        "现在的心情：{mood}（满分100）。\n\n读完对话，只回答一个JSON对象："
        '{{"change": 从-{step}到{step}的整数，上一句回复让你的心情变了多少, "why": "……", '
        '"say": "你接着说的话"}}。'
    ),
}


def simulate(
    personas: Sequence[SimulatedPersona], simulator: Chat, arm: Chat, turns: int = 8
) -> list[Trajectory]:
    """Lets each persona talk to the arm; all go on together, a turn at a time.

    Raises:
      InputError: no persona, or no turn.
    """
    if not personas or turns < 1:
        raise InputError(f"{len(personas)} personas, {turns} turns; give one or more of each")
    found = [Trajectory(one, (START,), (Message("user", one.opening),), 0) for one in personas]
    for _ in range(turns):
        going = [at for at, one in enumerate(found) if LOW < one.moods[-1] < HIGH]
        if not going:
            break
        replies = arm([found[at].messages for at in going])
        for at, reply in zip(going, replies, strict=True):
            said = (*found[at].messages, Message("assistant", reply.text))
            found[at] = found[at]._replace(messages=said)
        answers = simulator([simulator_prompt(found[at]) for at in going])
        for at, answer in zip(going, answers, strict=True):
            found[at] = _moved(found[at], read_move(answer.text))
    return found


def simulator_prompt(so_far: Trajectory) -> tuple[Message, ...]:
    """What the simulator is asked: who it is, how it feels, and what was said."""
    one = so_far.persona
    text = _PLAY[one.language].format(
        who=one.who, trouble=one.trouble, need=one.need, mood=so_far.moods[-1], step=STEP
    )
    names = {"user": "YOU", "assistant": "ASSISTANT"}
    said = "\n".join(f"{names[message.role]}: {message.content}" for message in so_far.messages)
    return (Message("user", f"{text}\n\n{said}"),)


def read_move(text: str) -> tuple[int, str] | None:
    """The change of mood and the next words; None for anything else than what was asked for."""
    bare = re.sub(r"^\s*```(?:json)?\s*|\s*```\s*$", "", text)
    try:
        found = json.loads(bare)
    except (ValueError, RecursionError):
        return None
    match found:
        case {"change": int(change), "why": str(), "say": str(say)} if say.strip():
            whole = not isinstance(found["change"], bool) and abs(change) <= STEP
            return (change, say) if whole else None
    return None


def trajectory_figures(moods: Sequence[int], turns: int) -> dict[str, float]:
    """Final mood, its mean over turns, the slope per turn, the worst, and how far it fell.

    A conversation that ended early keeps its last mood to the end for the mean. From 50, 60, 40:
    final 40, mean of the replies 50, slope -5, worst 40, fall 20.
    """
    after = list(moods[1:]) + [moods[-1]] * (turns - len(moods) + 1)
    places = np.arange(len(moods))
    slope = float(np.polyfit(places, moods, 1)[0]) if len(moods) > 1 else 0.0
    falls = [max(moods[: at + 1]) - mood for at, mood in enumerate(moods)]
    return {
        "final": float(moods[-1]),
        "mean": fmean(after),
        "slope": slope,
        "worst": float(min(moods)),
        "fall": float(max(falls)),
    }


def _moved(so_far: Trajectory, move: tuple[int, str] | None) -> Trajectory:
    if move is None:
        mood, say, unread = so_far.moods[-1], "...", so_far.unread + 1
    else:
        mood = min(HIGH, max(LOW, so_far.moods[-1] + move[0]))
        say, unread = move[1], so_far.unread
    messages = (*so_far.messages, Message("user", say))
    return Trajectory(so_far.persona, (*so_far.moods, mood), messages, unread)
