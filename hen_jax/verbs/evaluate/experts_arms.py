"""Arms of experts answer replayed conversations: which expert answers what, journalled."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.checksums import text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json
from hen_jax.core.journal import Journal
from hen_jax.data.schemas import check_records
from hen_jax.data.splits import part_of
from hen_jax.data.steered import SteeredRecord
from hen_jax.evaluation.replayed_turns import Said, Script, replayed
from hen_jax.runs.chats import open_chat, revision
from hen_jax.runs.routing import open_router
from hen_jax.runs.sources import locate_source
from hen_jax.text.conversation import Message
from hen_jax.text.prompts import context_message
from hen_jax.verbs.evaluate.experts_settings import EXPERT, ExpertArm, Measurement


def scripts_of(asked: Measurement) -> list[Script]:
    """The user's side of the conversations asked for, each conversation once.

    Raises:
      InputError: a bad record (file:line:field), or no conversation in the parts asked for.
    """
    found: dict[str, Script] = {}
    count: dict[str, int] = {}
    for source in asked.conversations:
        path = locate_source(source.path)
        records = check_records(path, source.schema, source.columns.given()).whole(path)
        for record in records:
            name, context = record.group, record.context
            if name in found or part_of(name) not in asked.parts:
                continue
            if asked.limit and count.get(context, 0) >= asked.limit:
                continue
            count[context] = count.get(context, 0) + 1
            found[name] = _script(record, asked.turns)
    if not found:
        raise InputError(f"no conversation in part {asked.part!r} of the files; give part 'all'")
    return list(found.values())


def _script(record: SteeredRecord, turns: int) -> Script:
    some = record.turns[:turns]
    users, chosen = tuple(turn.user for turn in some), tuple(turn.chosen for turn in some)
    return Script(record.group, record.group, record.context, record.target_level, users, chosen)


class Answers(NamedTuple):
    """What an arm said."""

    said: Said
    by: str  # a word for who said it, and how: another model or prompt has another one
    routes: Mapping[str, str | None]  # by script: the expert; None the base


def answers_of(
    arm: ExpertArm, asked: Measurement, scripts: Sequence[Script], journal: Journal
) -> Answers:
    """The replies of an arm to all scripts, those of an earlier attempt included.

    One expert is in memory at a time.

    Raises:
      InputError: no such back-end, adapter or routes.
    """
    routes = routes_of(arm, scripts)
    by = _by(arm, asked, scripts, routes)
    known = {(row["id"], row["turn"]): row["reply"] for row in journal.rows if row["by"] == by}
    said: Said = {}
    for expert in dict.fromkeys(routes.values()):
        own = [script for script in scripts if routes[script.id] == expert]
        names = {script.id for script in own}
        mine = {key: text for key, text in known.items() if key[0] in names}
        line, adapter = _who(arm, asked, expert)
        chat = open_chat(line, asked.answering(adapter))

        def keep(new: Said) -> None:
            journal.append(
                {"by": by, "id": name, "turn": turn, "reply": text}
                for (name, turn), text in new.items()
            )

        said |= replayed(chat, own, lambda script: opening_of(arm, script), mine, keep)
    return Answers(said, by, routes)


def opening_of(arm: ExpertArm, script: Script) -> tuple[Message, ...]:
    """What an arm is told before the first turn."""
    return (context_message(script.context),) if arm.prompted else ()


def routes_of(arm: ExpertArm, scripts: Sequence[Script]) -> dict[str, str | None]:
    """The expert that answers each script; None where the base does.

    A router reads the first thing that the user says, and keeps to it. A file of routes is JSON,
    `{id of a conversation: expert or null}`.

    Raises:
      InputError: a file without an answer for a conversation.
    """
    contexts = sorted({script.context for script in scripts})
    if arm.route == "oracle":
        return {script.id: script.context for script in scripts}
    if arm.route == "wrong":
        if len(contexts) < 2:
            raise InputError(
                f"arm {arm.name!r}: route 'wrong' needs conversations of two contexts or more"
            )
        after = dict(zip(contexts, [*contexts[1:], contexts[0]], strict=True))
        return {script.id: after[script.context] for script in scripts}
    path = Path(arm.route)
    if path.is_dir():
        first = [[Message("user", script.users[0])] for script in scripts]
        found = open_router(path)(first)
        return {script.id: one.expert for script, one in zip(scripts, found, strict=True)}
    if not path.is_file():
        raise InputError(
            f"arm {arm.name!r}: route is {arm.route!r}; give 'oracle', 'wrong', the folder of a "
            "router, or a file"
        )
    given: Any = read_json(path)
    lost = [script.id for script in scripts if script.id not in given]
    if lost:
        raise InputError(f"{path} has no expert for conversation {lost[0]!r}; null is the base")
    return {script.id: given[script.id] for script in scripts}


def _who(arm: ExpertArm, asked: Measurement, expert: str | None) -> tuple[str, Path | None]:
    """The back-end's line and the adapter's folder."""
    line = arm.backend or asked.backend
    if expert is None:
        return asked.backend, None
    adapter = None if arm.adapter is None else Path(arm.adapter.replace(EXPERT, expert))
    if adapter is not None and not adapter.is_dir():
        raise InputError(f"arm {arm.name!r}: no adapter at {adapter}; `hen export` writes one")
    return line.replace(EXPERT, expert), adapter


def _by(
    arm: ExpertArm, asked: Measurement, scripts: Sequence[Script], routes: Mapping[str, str | None]
) -> str:
    experts = sorted(set(routes.values()), key=str)
    who = {
        str(expert): [line, revision(line, adapter)]
        for expert in experts
        for line, adapter in (_who(arm, asked, expert),)
    }
    openings = [[one.content for one in opening_of(arm, script)] for script in scripts]
    told = [who, dict(routes), openings, list(map(list, scripts)), asked.max_new_tokens]
    told += [asked.temperature, asked.dtype, asked.seed]
    return text_sha256(json.dumps(told, sort_keys=True))[:12]
