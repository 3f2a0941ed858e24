"""`hen build`: training data of methods, from dialogues that end with a reply."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hen_jax.core.checksums import text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.journal import Journal, open_journal
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.data.schemas import check_records, schema_named
from hen_jax.methods import distil, ebg, muffin
from hen_jax.methods.emotions import EBG_LABELS, HED_LABELS, Attribute
from hen_jax.methods.kept_calls import KIND, kept
from hen_jax.methods.muffin import FACETS, facet_call, helpful, unhelpful_rate, verdict
from hen_jax.methods.sections import is_chinese_text
from hen_jax.methods.tooled import trace_row
from hen_jax.methods.tools import RELATIONS, Call, faq_tool, knowledge_tool
from hen_jax.recipes.generate import Request, open_speaker_of, require_settings
from hen_jax.runs.chats import revision
from hen_jax.runs.sources import locate_source
from hen_jax.text.conversation import Chat, Message

CALLS = "calls.jsonl"

LABELS: Mapping[str, Mapping[str, Attribute]] = {"ebg": EBG_LABELS, "hed": HED_LABELS}


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """A dialogue that ends with a reply."""

    id: str
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
            found.setdefault(said, Dialogue(document.id, said, named.labels(record)))
    if not found:
        raise InputError(f"{source}: no dialogue that ends with a reply")
    return list(found.values())


def build_ebg(
    request: Request, source: Path, schema: str, out: Path, *, label: str, labels: str
) -> dict[str, Any]:
    """`stage1.jsonl` and `stage2.jsonl`: an analysis of each dialogue, written by who answers, and
    then the reply.

    Raises:
      InputError: bad input, or a dialogue whose label is none.
    """
    paths = _paths(out, "stage1.jsonl", "stage2.jsonl", "report.json")
    known, dialogues = LABELS[labels], read_dialogues(source, schema)
    for one in dialogues:
        if one.labels.get(label) not in known:
            raise InputError(f"record {one.id}: {label} is {one.labels.get(label)!r}; "
                             f"--labels {labels} has {', '.join(known)}")  # fmt: skip
    with open_journal(out / CALLS, KIND) as journal:
        chat = _kept_chat(request, journal)
        asked = [
            ebg.writing_messages(one.asked, one.labels[label], _language(one)) for one in dialogues
        ]
        written = [reply.text.strip() for reply in chat(asked)]
    good = [(one, text) for one, text in zip(dialogues, written, strict=True) if text]
    rows: dict[ebg.Stage, list[dict[str, Any]]] = {1: [], 2: []}
    for one, text in good:
        emotion = one.labels[label]
        found = ebg.Analysis(" ".join(text.split()), known[emotion], emotion)
        for stage, into in rows.items():
            given = {"labels": known, "language": _language(one)}
            into.append(ebg.training_row(one.id, one.messages, found, stage, **given))
    report = {"dialogues": len(dialogues), "without an analysis": len(dialogues) - len(good)}
    with output_files(*paths) as (first, second, told):
        _write(first, rows[1])
        _write(second, rows[2])
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
    """`traces.jsonl`: dialogues in which a tool is asked where its answer helps to say the reply.

    Raises:
      InputError: bad input, or no tool.
    """
    paths = _paths(out, "traces.jsonl", "report.json")
    tools = [] if knowledge is None else [knowledge_tool(knowledge)]
    tools += [] if faq is None else [faq_tool(faq)]
    if not tools:
        raise InputError("no tool; give --knowledge FILE, --faq FILE or both")
    named = {tool.name: tool for tool in tools}
    rows = []
    for one in read_dialogues(source, schema):
        said = one.asked[-1].content
        tries = [
            Call(name, {"event": said, "relation": relation} if "event" in tool.arguments
                 else {"question": said})
            for name, tool in named.items()
            for relation in (RELATIONS if "event" in tool.arguments else ("",))
        ]  # fmt: skip
        rows.append(trace_row(one.id, one.messages, named, tries, least=least))
    called = sum(row.pop("called") for row in rows)
    report = {"dialogues": len(rows), "with a call": called}
    with output_files(*paths) as (traces, told):
        _write(traces, rows)
        write_json(told, report)
    print(f"{out}: {len(rows)} dialogues, {called} of them with a call")
    return report


def build_muffin(
    request: Request,
    judge: Request,
    source: Path,
    schema: str,
    out: Path,
    *,
    candidates: int = muffin.CANDIDATES,
    vote: muffin.Vote = "and",
) -> dict[str, Any]:
    """`candidates.jsonl`: candidates of who answers to each dialogue, with the judge's feedback.

    Its unhelpful rate is that of the model: run it before and after training.

    Raises:
      InputError: bad input, fewer than two candidates, or a back-end that does not answer.
    """
    if candidates < 2:
        raise InputError("--candidates is 2 or more: one alone is neither better nor worse")
    paths = _paths(out, "candidates.jsonl", "report.json")
    dialogues = read_dialogues(source, schema)
    with open_journal(out / CALLS, KIND) as journal:
        chat, judging = _kept_chat(request, journal), _kept_chat(judge, journal)
        said = chat([one.asked for one in dialogues for _ in range(candidates)])
        texts = [
            list(
                dict.fromkeys(x.text.strip() for x in said[at : at + candidates] if x.text.strip())
            )
            for at in range(0, len(said), candidates)
        ]
        asked = [
            facet_call(one.asked, text, facet, _language(one))
            for one, own in zip(dialogues, texts, strict=True)
            for text in own
            for facet in FACETS
        ]
        verdicts = iter(judging(asked))
    rows, found, parsed = [], [], Counter()
    for one, own in zip(dialogues, texts, strict=True):
        feedback = [{facet.name: verdict(next(verdicts), facet) for facet in FACETS} for _ in own]
        labels = [helpful(each, vote) for each in feedback]
        found += labels
        parsed.update(f"{name} {label}" for each in feedback for name, label in each.items())
        if own:
            rows.append(_candidate_row(one, own, labels, feedback))
    rate, unknown = unhelpful_rate(found)
    report = {
        "contexts": len(dialogues),
        "without a candidate": len(dialogues) - len(rows),
        "candidates": len(found),
        "unhelpful rate": None if rate != rate else rate,
        "not known": unknown,
        "feedback": dict(sorted(parsed.items())),
    }
    with output_files(*paths) as (file, told):
        _write(file, rows)
        write_json(told, report)
    print(f"{out}: {len(found)} different candidates to {len(rows)} contexts; unhelpful "
          f"{rate:.3f} of those known, {unknown} not known")  # fmt: skip
    return report


def build_distil(source: Path, out: Path, *, writer: str) -> dict[str, Any]:
    """`sft.jsonl`, `pairs.jsonl` and `held_out.jsonl` of a rated file.

    Raises:
      InputError: a bad row, or a writer that the file does not have.
    """
    if writer not in distil.SOURCES[1:]:
        raise InputError(f"--writer {writer!r}; allowed: {', '.join(distil.SOURCES[1:])}")
    paths = _paths(out, "sft.jsonl", "pairs.jsonl", "held_out.jsonl", "report.json")
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
            _write(file, rows)
        write_json(told, report)
    print(f"{out}: {report}")
    return report


def _candidate_row(
    one: Dialogue,
    texts: Sequence[str],
    labels: Sequence[bool | None],
    feedback: Sequence[Mapping[str, str | None]],
) -> dict[str, Any]:
    return {
        "id": one.id,
        "prompt": [{"role": x.role, "content": x.content} for x in one.asked],
        "gold": one.reply,
        "candidates": list(texts),
        "helpful": [None if label is None else int(label) for label in labels],
        "feedback": list(feedback),
    }


def _kept_chat(request: Request, journal: Journal) -> Chat:
    require_settings(request)
    told = dataclasses.asdict(request) | {"revision": revision(request.line, request.adapter)}
    identity = text_sha256(json.dumps(told, sort_keys=True, default=str))
    return kept(open_speaker_of(request)(request.seed), journal, identity)


def _language(one: Dialogue) -> Any:
    return "zh" if is_chinese_text(one.asked) else "en"


def _paths(out: Path, *names: str) -> list[Path]:
    paths = [out / name for name in names]
    require_no_link(out)
    require_ours(*paths)
    return paths


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
