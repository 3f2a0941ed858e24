"""`hen build muffin`: candidates to each dialogue with feedback in three facets."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.journal import open_journal
from hen_jax.core.outputs import output_files
from hen_jax.methods import muffin
from hen_jax.methods.kept_calls import METHOD_JOURNAL
from hen_jax.methods.muffin import FACETS, facet_call, helpful, unhelpful_rate, verdict
from hen_jax.text.conversation import Reply, message_row
from hen_jax.verbs.generate.generate import GenerateRequest
from hen_jax.verbs.methods.build import (
    CALLS,
    Dialogue,
    kept_chat,
    last_language,
    paths_of,
    read_dialogues,
    write_rows,
)


def build_muffin(
    request: GenerateRequest,
    judge: GenerateRequest,
    source: Path,
    schema: str,
    out: Path,
    *,
    candidates: int = muffin.CANDIDATES,
    vote: muffin.VotingRule = "and",
) -> dict[str, Any]:
    """`candidates.jsonl`: candidates of who answers to each dialogue, with the judge's feedback.

    Its unhelpful rate is that of the model: run it before and after training.

    Raises:
      InputError: bad input, fewer than two candidates, or a back-end that does not answer.
    """
    if candidates < 2:
        raise InputError("--candidates is 2 or more: one alone is neither better nor worse")
    paths = paths_of(out, "candidates.jsonl", "report.json")
    dialogues = read_dialogues(source, schema)
    with open_journal(out / CALLS, METHOD_JOURNAL) as journal:
        chat, judging = kept_chat(request, journal), kept_chat(judge, journal)
        said = chat([one.asked for one in dialogues for _ in range(candidates)])
        texts = [_different(said[at : at + candidates]) for at in range(0, len(said), candidates)]
        asked = [
            facet_call(one.asked, text, facet, last_language(one))
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
    report = _report(len(dialogues), len(rows), found) | {"feedback": dict(sorted(parsed.items()))}
    with output_files(*paths) as (file, told):
        write_rows(file, rows)
        write_json(told, report)
    rate, unknown = report["unhelpful rate"], report["not known"]
    known = "of none is it known" if rate is None else f"unhelpful {rate:.3f} of those known"
    print(f"{out}: {len(found)} different candidates to {len(rows)} contexts; {known}, {unknown} "
          "not known")  # fmt: skip
    return report


def _different(replies: Sequence[Reply]) -> list[str]:
    """The replies that say something, each once, in their order."""
    return list(dict.fromkeys(text for one in replies if (text := one.text.strip())))


def _report(dialogues: int, rows: int, found: Sequence[bool | None]) -> dict[str, Any]:
    rate, unknown = unhelpful_rate(found)
    return {
        "contexts": dialogues,
        "without a candidate": dialogues - rows,
        "candidates": len(found),
        "unhelpful rate": None if math.isnan(rate) else rate,
        "not known": unknown,
    }


def _candidate_row(
    one: Dialogue,
    texts: Sequence[str],
    labels: Sequence[bool | None],
    feedback: Sequence[Mapping[str, str | None]],
) -> dict[str, Any]:
    return {
        "id": one.id,
        "group": one.group,
        "prompt": list(map(message_row, one.asked)),
        "gold": one.reply,
        "candidates": list(texts),
        "helpful": [None if label is None else int(label) for label in labels],
        "feedback": list(feedback),
    }
