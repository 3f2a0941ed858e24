"""Conversations written turn by turn: a user simulator and an assistant, then the other branches.

All scenes go on together, a turn at a time, so that a model of ours has whole batches. A scene
whose reply is no usable text is out from there on; it is told why.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.patterns import Guides
from hen_jax.data.steered import HARD_SUFFIX, SteeredRecord, SteeredTurn
from hen_jax.synthesis.asking import Ask
from hen_jax.synthesis.instructions import against, hard_asked, reply_asked, user_asked
from hen_jax.synthesis.materials import Materials
from hen_jax.synthesis.scenes import Scene
from hen_jax.text.conversation import Reply


class Dropped(NamedTuple):
    """A record that was not kept, and why."""

    id: str
    why: str  # the stage or filter
    detail: str


class SpokenScene(NamedTuple):
    """A scene with its user's side and one assistant's."""

    scene: Scene
    users: tuple[str, ...] = ()
    replies: tuple[str, ...] = ()


class WrittenStage(NamedTuple):
    """What a stage made of its scenes, and what it lost."""

    spoken: list[SpokenScene]
    dropped: list[Dropped]


_SPEAKS_FOR = re.compile(r"^\s*(user|assistant|human|用户|助手)\s*[:：]", re.I | re.M)
_HAN, _LETTER = re.compile(r"[\u3400-\u9fff]"), re.compile(r"[^\W\d_]")


def written_chosen(
    scenes: Sequence[Scene], guides: Guides, materials: Materials, user: Ask, assistant: Ask
) -> WrittenStage:
    """The user's side and the empathetic branch."""
    live, dropped = [SpokenScene(scene) for scene in scenes], []
    done: dict[str, SpokenScene] = {}
    while live:
        asked = [
            user_asked(one.scene, guides[one.scene.context], materials, one.users, one.replies)
            for one in live
        ]
        said = _usable(live, user(asked), materials, "user", dropped)
        live = [one._replace(users=(*one.users, text)) for one, text in said]
        asked = [
            reply_asked(guides[one.scene.context], materials, "empathetic", one.users, one.replies)
            for one in live
        ]
        said = _usable(live, assistant(asked), materials, "chosen", dropped)
        live = [one._replace(replies=(*one.replies, text)) for one, text in said]
        done |= {one.scene.id: one for one in live if len(one.users) == one.scene.turns}
        live = [one for one in live if len(one.users) < one.scene.turns]
    return WrittenStage([done[scene.id] for scene in scenes if scene.id in done], dropped)


def written_rejected(
    chosen: Sequence[SpokenScene], guides: Guides, materials: Materials, assistant: Ask
) -> WrittenStage:
    """The other branch on the same user side: it knows its own earlier replies, not the chosen."""
    live, dropped = [one._replace(replies=()) for one in chosen], []
    good = {one.scene.id: one.replies for one in chosen}
    done: dict[str, SpokenScene] = {}
    for turn in range(max((one.scene.turns for one in chosen), default=0)):
        asked = []
        for one in live:
            guide = guides[one.scene.context]
            users, like = one.users[: turn + 1], good[one.scene.id][turn]
            asked.append(
                reply_asked(guide, materials, against(guide), users, one.replies, like=like)
            )
        said = _usable(live, assistant(asked), materials, "rejected", dropped)
        live = [one._replace(replies=(*one.replies, text)) for one, text in said]
        done |= {one.scene.id: one for one in live if turn + 1 == one.scene.turns}
        live = [one for one in live if turn + 1 < one.scene.turns]
    return WrittenStage([done[one.scene.id] for one in chosen if one.scene.id in done], dropped)


def written_hard(
    chosen: Sequence[SpokenScene], materials: Materials, assistant: Ask
) -> WrittenStage:
    """Replies in the chosen branch's style with the scene's fault, at every turn."""
    faulty = [one for one in chosen if one.scene.fault is not None]
    places = [(one, turn) for one in faulty for turn in range(one.scene.turns)]
    asked = [
        hard_asked(one.scene, materials, one.users[: turn + 1], one.replies[: turn + 1])
        for one, turn in places
    ]
    dropped: list[Dropped] = []
    said = _usable([one for one, _ in places], assistant(asked), materials, "hard", dropped)
    texts: dict[str, list[str]] = {}
    for one, text in said:
        texts.setdefault(one.scene.id, []).append(text)
    whole = [one for one in faulty if len(texts.get(one.scene.id, ())) == one.scene.turns]
    first_of = {one.id: one for one in reversed(dropped)}  # a scene is lost once
    lost = [one._replace(id=one.id + HARD_SUFFIX) for one in reversed(first_of.values())]
    return WrittenStage([one._replace(replies=tuple(texts[one.scene.id])) for one in whole], lost)


def records(
    chosen: Sequence[SpokenScene], other: Sequence[SpokenScene], guides: Guides, *, hard: bool
) -> list[SteeredRecord]:
    """Pairs of the chosen branch with another one of the same scenes."""
    good: Mapping[str, SpokenScene] = {one.scene.id: one for one in chosen}
    made = []
    for one in other:
        scene, best = one.scene, good[one.scene.id]
        sides = zip(best.users, best.replies, one.replies, strict=True)
        made.append(
            SteeredRecord(
                id=scene.id + (HARD_SUFFIX if hard else ""),
                context=scene.context,
                task=scene.task,
                persona=scene.persona,
                target_level=round(guides[scene.context].pattern.level, 4),
                turns=tuple(SteeredTurn(*side) for side in sides),
                fault=scene.fault if hard else None,
            )
        )
    return made


def unusable(reply: Reply, language: str) -> str | None:
    """Why a reply is no turn of a conversation; None where it is one."""
    if not reply.stopped:
        return "cut off at its greatest length"
    try:
        text = fields.text_field({"reply": reply.text}, "reply")
    except InputError as error:
        return str(error)
    if _SPEAKS_FOR.search(text):
        return "speaks for both sides"
    letters, han = len(_LETTER.findall(text)), len(_HAN.findall(text))
    if (han / max(letters, 1) > 0.5) != (language == "zh"):
        return "in another language"
    return None


def _usable(
    live: Sequence[SpokenScene],
    replies: Sequence[Reply],
    materials: Materials,
    what: str,
    dropped: list[Dropped],
) -> list[tuple[SpokenScene, str]]:
    found = []
    for one, reply in zip(live, replies, strict=True):
        why = unusable(reply, materials.language)
        if why is None:
            found.append((one, reply.text.strip()))
        else:
            dropped.append(Dropped(one.scene.id, what, why))
    return found
