"""`hen identify`: small classifiers of replies and emotions, trained and applied."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hen_jax.core.checksums import file_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.folders import require_replaceable
from hen_jax.core.outputs import output_files, require_ours
from hen_jax.data import fields
from hen_jax.data.records import parse_records
from hen_jax.data.rows import Row
from hen_jax.data.schemas import check_records, schema_named
from hen_jax.data.splits import split_records
from hen_jax.methods.epitome import HEADS, REWARD_MECHANISMS, context_of, read_joined_epitome
from hen_jax.methods.identified_emotions import EMOTION_HEAD, said_last
from hen_jax.methods.identifier import Trained, head_probabilities, predicted_labels
from hen_jax.methods.identifier_training import (
    IDENTIFIER_KIND,
    LabelledReply,
    TrainingConfig,
    heads_of,
    load_identifier,
    save_identifier,
    train_identifier,
)
from hen_jax.methods.label_scores import accuracy, label_macro_f1
from hen_jax.runs.sources import locate_source
from hen_jax.text.conversation import Message


@dataclasses.dataclass(frozen=True)
class Identifying:
    """One `hen identify train`: rows from a file, a schema with labels, or EPITOME's files."""

    out: Path
    input: Path | None = None
    schema: str | None = None
    label: str | None = None  # which label of the schema; None: the emotion
    epitome: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    training: TrainingConfig = TrainingConfig()


def identify_train(identifying: Identifying) -> dict[str, Any]:
    """Trains on the part that is not held out, writes the folder and prints what it is worth.

    Raises:
      InputError: bad input, nothing to learn from, or an `out` that is not ours.
    """
    require_replaceable(identifying.out, IDENTIFIER_KIND)
    rows, paths = _labelled(identifying)
    given = None if identifying.epitome else heads_of(rows)
    dealt = split_records(rows, lambda row: row.group or row.context)
    # of EPITOME all levels of each mechanism that there is something to learn of
    seen = {head for row in dealt.train for head in row.labels}
    heads = {head: HEADS[head] for head in HEADS if head in seen} if given is None else given
    found = train_identifier(dealt.train, heads, training=identifying.training)
    report = {
        "rows": {"train": len(dealt.train), "held out": len(dealt.valid) + len(dealt.test)},
        "held_out": _scores(found, [*dealt.valid, *dealt.test]),
        "train": _scores(found, dealt.train),
        "input": {path.name: file_sha256(path) for path in paths},
        "training": dataclasses.asdict(identifying.training),
    }
    save_identifier(identifying.out, found, {"report": report})
    for head, told in report["held_out"].items():
        figures = ", ".join(f"{name} {value:.3f}" for name, value in told.items())
        print(f"{head}, held out: {figures}")
    print(f"{identifying.out}: an identifier of {', '.join(heads)}")
    return report


def _scores(found: Trained, rows: Sequence[LabelledReply]) -> dict[str, dict[str, float]]:
    """Accuracy and macro-F1 of each head, beside those of always saying the most frequent label."""
    probs = head_probabilities(found, [(row.context, row.reply) for row in rows]) if rows else {}
    told = {}
    for head, labels in found.heads.items():
        there = [at for at, row in enumerate(rows) if head in row.labels]
        if not there:
            continue
        gold = [rows[at].labels[head] for at in there]
        given = [labels[int(probs[head][at].argmax())] for at in there]
        most = max(labels, key=gold.count)
        told[head] = {
            "accuracy": accuracy(gold, given),
            "macro-F1": label_macro_f1(gold, given, labels),
            "majority accuracy": accuracy(gold, [most] * len(gold)),
            "majority macro-F1": label_macro_f1(gold, [most] * len(gold), labels),
        }
    return told


def identify_label(model: Path, source: Path, schema: str, out: Path) -> int:
    """Writes a line for each reply of a file: `id`, and the label and probability of every head;
    EPITOME's levels also in the columns that EmpRL's data has.

    Raises:
      InputError: bad input, no identifier, or an `out` that is not ours.
    """
    require_ours(out)
    found, named = load_identifier(model), schema_named(schema)
    documents = [
        named.document(one)
        for one in check_records(locate_source(str(source)), schema).whole(source)
    ]
    pairs = [pair_of(one.conversation.messages, found) for one in documents]
    probs, best = head_probabilities(found, pairs), predicted_labels(found, pairs)
    with output_files(out) as (staged,), staged.open("w", encoding="utf-8") as file:
        for at, document in enumerate(documents):
            row: dict[str, Any] = {"id": document.id, "labels": best[at]}
            row["probability"] = {head: round(float(probs[head][at].max()), 4) for head in probs}
            row |= {
                column: int(best[at][name])
                for name, column in REWARD_MECHANISMS.items()
                if found.heads.get(name) == HEADS[name]
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{out}: {len(documents)} lines")
    return len(documents)


def pair_of(messages: Sequence[Message], found: Trained) -> tuple[str, str]:
    """What an identifier reads of a dialogue: the user's last turn and the reply, or of an emotion
    what was said before, and the user's last turn."""
    if EMOTION_HEAD in found.heads:
        return said_last(messages)
    *before, last = messages
    if last.role != "assistant":
        raise InputError("a dialogue that ends with the user has no reply to label")
    return context_of(before), last.content


def parse_labelled_pair(row: Row) -> tuple[str, LabelledReply]:
    """One row `{"context", "reply", "labels": {HEAD: LABEL}}`, with an optional `group`.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    labels = fields.from_text(row.get("labels"))
    if not isinstance(labels, dict) or not labels:
        raise InputError('labels: missing; give an object such as {"ER": "1"}')
    context = fields.text_field(row, "context") if row.get("context") else ""
    group = fields.name_field(row, "group") if "group" in row else context
    named = {str(head): str(label) for head, label in labels.items()}
    reply = fields.text_field(row, "reply")
    return fields.name_field(row, "id"), LabelledReply(context, reply, named, group)


def _labelled(identifying: Identifying) -> tuple[list[LabelledReply], list[Path]]:
    if identifying.label is not None and identifying.schema is None:
        raise InputError("--label says which label of a --schema is learnt; give --schema, or "
                         "leave it out: rows have their labels")  # fmt: skip
    if identifying.epitome:
        if identifying.input is not None:
            raise InputError("--epitome takes the place of --input")
        return read_joined_epitome(identifying.epitome), list(identifying.epitome.values())
    if identifying.input is None:
        raise InputError("nothing to learn from; give --input FILE, or --epitome ER=FILE ...")
    path = locate_source(str(identifying.input))
    if identifying.schema is None:
        found = parse_records(path, parse_labelled_pair, lambda one: one[0], number=True)
        return [row for _, row in found.whole(path)], [path]
    named, rows, label = schema_named(identifying.schema), [], identifying.label or EMOTION_HEAD
    for record in check_records(path, identifying.schema).whole(path):
        document, labels = named.document(record), named.labels(record)
        if label not in labels:
            raise InputError(
                f"--label {label!r}: records of {identifying.schema!r} have "
                f"{', '.join(labels) or 'no label'}"
            )
        context, said = said_last(document.conversation.messages)
        rows.append(LabelledReply(context, said, {label: labels[label]}, document.group))
    return rows, [path]
