"""`hen build`: training data of methods, from dialogues that end with a reply."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.journal import Journal, open_journal
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.core.ranges import Range, require_in
from hen_jax.data.schemas import check_records, schema_named
from hen_jax.empathy.labels import Language
from hen_jax.methods import distil, ebg
from hen_jax.methods.emotion_models import EmotionModel
from hen_jax.methods.emotions import EBG_LABELS, HED_LABELS, Attribute
from hen_jax.methods.kept_calls import METHOD_JOURNAL, kept
from hen_jax.methods.personality import TRAITS_OF_SPACE, Space, personality, reaction
from hen_jax.methods.sections import is_chinese_text
from hen_jax.methods.tooled import trace_row
from hen_jax.methods.tools import RELATIONS, Call, faq_tool, knowledge_tool
from hen_jax.runs.sources import locate_source
from hen_jax.text.conversation import Chat, Message, message_row
from hen_jax.verbs.generate.generate import (
    GenerateRequest,
    identity_of,
    open_speaker_of,
    require_settings,
)

CALLS = "calls.jsonl"

_LABELS: Mapping[str, Mapping[str, Attribute]] = {"ebg": EBG_LABELS, "hed": HED_LABELS}


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """A dialogue that ends with a reply."""

    id: str
    group: str  # what the parts of the data keep together
    messages: tuple[Message, ...]
    labels: Mapping[str, str]

    @property
    def asked(self) -> tuple[Message, ...]:
        """All before the reply."""
        return self.messages[:-1]

    @property
    def reply(self) -> str:
        """What was said."""
        return self.messages[-1].content


def read_dialogues(source: Path, schema: str, *, bare: bool = True) -> list[Dialogue]:
    """The dialogues of a file that end with a reply; `bare` leaves system messages out, and then
    each is there once.

    Raises:
      InputError: a bad record, or none that ends with a reply.
    """
    named, path = schema_named(schema), locate_source(str(source))
    found: dict[tuple[Message, ...], Dialogue] = {}
    for record in check_records(path, schema).whole(path):
        document = named.document(record)
        said = document.conversation.messages
        said = tuple(one for one in said if not bare or one.role != "system")
        if len(said) > 1 and said[-1].role == "assistant":
            found.setdefault(
                said, Dialogue(document.id, document.group, said, named.labels(record))
            )
    if not found:
        raise InputError(f"{source}: no dialogue that ends with a reply")
    return list(found.values())


def build_ebg(
    request: GenerateRequest, source: Path, schema: str, out: Path, *, label: str, labels: str
) -> dict[str, Any]:
    """`stage1.jsonl` and `stage2.jsonl`: an analysis of each dialogue, written by who answers, and
    then the reply.

    Raises:
      InputError: bad input, or a dialogue whose label is none.
    """
    paths = paths_of(out, "stage1.jsonl", "stage2.jsonl", "report.json")
    known, dialogues = _LABELS[labels], read_dialogues(source, schema)
    for one in dialogues:
        if one.labels.get(label) not in known:
            raise InputError(f"record {one.id}: {label} is {one.labels.get(label)!r}; "
                             f"--labels {labels} has {', '.join(known)}")  # fmt: skip
    with open_journal(out / CALLS, METHOD_JOURNAL) as journal:
        chat = kept_chat(request, journal)
        asked = [
            ebg.writing_messages(one.asked, one.labels[label], last_language(one))
            for one in dialogues
        ]
        written = [reply.text.strip() for reply in chat(asked)]
    good = [(one, text) for one, text in zip(dialogues, written, strict=True) if text]
    rows: dict[ebg.EbgStage, list[dict[str, Any]]] = {1: [], 2: []}
    for one, text in good:
        emotion = one.labels[label]
        found = ebg.Analysis(" ".join(text.split()), known[emotion], emotion)
        for stage, into in rows.items():
            given = {"labels": known, "language": last_language(one)}
            row = ebg.training_row(one.id, one.messages, found, stage, **given)
            into.append(row | {"group": one.group})
    report = {"dialogues": len(dialogues), "without an analysis": len(dialogues) - len(good)}
    with output_files(*paths) as (first, second, told):
        write_rows(first, rows[1])
        write_rows(second, rows[2])
        write_json(told, report)
    print(f"{out}: {len(good)} dialogues for each stage; {report['without an analysis']} without "
          "an analysis left out")  # fmt: skip
    return report


def build_tools(
    source: Path,
    schema: str,
    out: Path,
    *,
    knowledge: Path | None,
    faq: Path | None,
    least: float,
) -> dict[str, Any]:
    """`traces.jsonl`: dialogues in which a tool is asked where its answer helps to say the reply;
    `due.jsonl`: the same without reply and tool, with whether a call is due, for `hen compare`.

    Raises:
      InputError: bad input, or no tool.
    """
    require_in("--least", least, Range(0, 1))
    paths = paths_of(out, "traces.jsonl", "due.jsonl", "report.json")
    tools = [] if knowledge is None else [knowledge_tool(knowledge)]
    tools += [] if faq is None else [faq_tool(faq)]
    if not tools:
        raise InputError("no tool; give --knowledge FILE, --faq FILE or both")
    named = {tool.name: tool for tool in tools}
    rows, due = [], []
    for one in read_dialogues(source, schema):
        said = one.asked[-1].content
        tries = [
            Call(name, {"event": said, "relation": relation} if "event" in tool.arguments
                 else {"question": said})
            for name, tool in named.items()
            for relation in (RELATIONS if "event" in tool.arguments else ("",))
        ]  # fmt: skip
        row = trace_row(one.id, one.messages, named, tries, least=least)
        told = {"id": one.id, "group": one.group, "due": row.pop("called")}
        asked = list(map(message_row, one.asked))
        due.append(told | {"messages": asked, "reference": one.reply})
        rows.append(row | {"group": one.group})
    called = sum(row["due"] for row in due)
    report = {"dialogues": len(rows), "with a call": called}
    with output_files(*paths) as (traces, asks, file):
        write_rows(traces, rows)
        write_rows(asks, due)
        write_json(file, report)
    print(f"{out}: {len(rows)} dialogues, {called} of them with a call")
    return report


def build_traits(
    source: Path, schema: str, out: Path, *, space: Space, model: EmotionModel | None
) -> dict[str, Any]:
    """`features.jsonl`: of each dialogue its speaker's traits after every turn, the newest of them,
    and the reactions that a small model expects (HED's labels; zeros without one).

    Raises:
      InputError: bad input.
    """
    paths = paths_of(out, "features.jsonl", "report.json")
    named, path, rows = schema_named(schema), locate_source(str(source)), []
    for record in check_records(path, schema).whole(path):
        document = named.document(record)
        messages = document.conversation.messages
        found = personality(messages, space)
        expected = [0.0] * len(HED_LABELS) if model is None else reaction(messages, model).tolist()
        states = [[round(x, 4) for x in state] for state in found.states.tolist()]
        traits = [round(x, 4) for x in found.now.tolist()]
        reactions = [round(x, 4) for x in expected]
        rows.append({"id": document.id, "traits": traits, "reactions": reactions, "states": states})
    report = {"records": len(rows), "space": space, "traits": list(TRAITS_OF_SPACE[space])}
    with output_files(*paths) as (features, told):
        write_rows(features, rows)
        write_json(told, report)
    print(f"{out}: {len(rows)} records; {', '.join(TRAITS_OF_SPACE[space])}")
    return report


def build_distil(source: Path, out: Path, *, writer: str) -> dict[str, Any]:
    """`sft.jsonl`, `pairs.jsonl` and `held_out.jsonl` of a rated file.

    Raises:
      InputError: a bad row, or a writer that the file does not have.
    """
    if writer not in distil.SOURCES[1:]:
        raise InputError(f"--writer {writer!r}; allowed: {', '.join(distil.SOURCES[1:])}")
    paths = paths_of(out, "sft.jsonl", "pairs.jsonl", "held_out.jsonl", "report.json")
    found = distil.read_rated(source)
    parts = [
        distil.sft_rows(found, writer),
        distil.pair_rows(found, writer),
        [{"id": one.id, "prompt": one.prompt} for one in found if one.held_out],
    ]
    report = {
        "rows": len(found),
        "train": sum(not one.held_out for one in found),
        **dict(zip(("sft", "pairs", "held out"), map(len, parts), strict=True)),
    }
    with output_files(*paths) as (*files, told):
        for file, rows in zip(files, parts, strict=True):
            write_rows(file, rows)
        write_json(told, report)
    print(f"{out}: {report}")
    return report


def kept_chat(request: GenerateRequest, journal: Journal) -> Chat:
    """Who answers, with every reply kept in the journal. Raises `InputError` for bad settings."""
    require_settings(request)
    return kept(open_speaker_of(request)(request.seed), journal, identity_of(request))


def last_language(one: Dialogue) -> Language:
    """The language of what the user says last."""
    return "zh" if is_chinese_text(one.asked) else "en"


def paths_of(out: Path, *names: str) -> list[Path]:
    """Files of a folder that may be written. Raises `InputError` for those that are not ours."""
    paths = [out / name for name in names]
    require_no_link(out)
    require_ours(*paths)
    return paths


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
