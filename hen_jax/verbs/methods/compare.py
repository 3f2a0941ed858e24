"""`hen compare`: methods, or models, over the same conversations, in one batch and one table.

All methods of one back-end want their next calls together, and these are made at once; every reply
is in `calls.jsonl` when it came, so that a command that was killed goes on from there.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.files import write_json
from hen_jax.core.journal import Journal, open_journal
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.methods.emotion_models import EmotionModel
from hen_jax.methods.epitome import Identify, identify_with
from hen_jax.methods.identifier_training import load_identifier
from hen_jax.methods.kept_calls import METHOD_JOURNAL, kept
from hen_jax.methods.measured import (
    MethodItem,
    Several,
    measure_methods,
    measured_row,
    of_the_set,
)
from hen_jax.methods.measured_by_models import (
    affect_measures,
    emp_f1_of,
    level_measures,
    small_model_recall,
)
from hen_jax.methods.peak import begin_peak, peak_bytes
from hen_jax.methods.play import Played, play
from hen_jax.methods.table import method_named
from hen_jax.methods.table_text import comparison_table
from hen_jax.text.conversation import Chat, Message, message_row
from hen_jax.verbs.generate.generate import (
    GenerateRequest,
    identity_of,
    open_speaker_of,
    require_settings,
)
from hen_jax.verbs.methods.comparing import Comparing, Contender, contenders, read_method_items

CALLS, REPLIES, TRACES = "calls.jsonl", "replies.jsonl", "traces.jsonl"
RESULTS, TABLE = "results.json", "table.md"


class MethodRuns(NamedTuple):
    """What came of all."""

    items: list[MethodItem]
    played: dict[str, list[Played]]
    costs: dict[str, dict[str, float | None]]


def compare(comparing: Comparing) -> dict[str, Any]:
    """Runs all methods, writes replies, traces, figures and the table, and prints the table.

    Raises:
      InputError: bad input, an unknown method, or a back-end that does not answer.
    """
    paths = [comparing.out / name for name in (REPLIES, TRACES, RESULTS, TABLE)]
    require_no_link(comparing.out)
    require_ours(*paths)
    # before anything is asked: it may be refused
    identify = None if comparing.epitome is None else _levels_by(comparing.epitome)
    model = comparing.parts.emotion_model
    more = more_measures(identify, model)
    found = run_methods(comparing)
    rows = measure_methods(found.items, found.played, more)
    spread = {name: of_the_set(found.items, played) for name, played in found.played.items()}
    if identify is not None:
        for name, played in found.played.items():
            spread[name] |= emp_f1_of(found.items, played, identify)
    recall = {} if model is None else small_model_recall(found.items, model)
    table = comparison_table(rows, spread, found.costs)
    result = {
        "input": str(comparing.input),
        "conversations": len(found.items),
        "together": not comparing.apart,
        "methods": {one.name: one.method for one in contenders(comparing)},
        "rows": list(map(measured_row, rows)),
        "sets": {name: finite(figures) for name, figures in spread.items()},
        "costs": found.costs,
        "small model": recall,
    }
    with output_files(*paths) as (replies, traces, results, text):
        replies.write_text("".join(_reply_lines(found)), encoding="utf-8")
        traces.write_text("".join(_trace_lines(found)), encoding="utf-8")
        write_json(results, result)
        text.write_text(table, encoding="utf-8")
    print(table, end="")
    if recall:
        told = ", ".join(f"{name} {value:.3f}" for name, value in recall.items())
        print(f"the small model of emotions, by the labels of the input: {told}")
    print(f"{comparing.out / REPLIES}: for `hen judge --schema replies --mode pairwise`")
    return result


def more_measures(identify: Identify | None, model: EmotionModel | None) -> dict[str, Several]:
    """Those that need an identifier of levels or a small model of emotions, where one is given."""
    more = {} if identify is None else level_measures(identify)
    return more if model is None else more | affect_measures(model)


def _levels_by(folder: Path) -> Identify:
    return identify_with(load_identifier(folder))


def finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures as JSON: None in place of NaN."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def run_methods(comparing: Comparing) -> MethodRuns:
    """The outcomes of all methods, and what each cost.

    Raises:
      InputError: as `compare`.
    """
    named = contenders(comparing)
    methods = {one.name: method_named(one.method, comparing.parts) for one in named}
    items = read_method_items(comparing)
    played: dict[str, list[Played]] = {}
    costs: dict[str, dict[str, float | None]] = {}
    with open_journal(comparing.out / CALLS, METHOD_JOURNAL) as journal:
        resumed = bool(journal.rows)
        for group in _groups(named, apart=comparing.apart):
            chat = _chat(group[0].request, journal)
            steps = [methods[one.name](item.messages) for one in group for item in items]
            begin_peak()
            began = time.perf_counter()
            done, seconds = play(steps, chat), time.perf_counter() - began
            peak, alone = peak_bytes(), len(group) == 1
            for at, one in enumerate(group):
                own = done[at * len(items) : (at + 1) * len(items)]
                spent = seconds if alone else sum(each.seconds for each in own)
                played[one.name] = own
                costs[one.name] = {
                    "seconds each": None if resumed else spent / len(items),
                    "peak MiB": peak / 2**20 if alone and peak is not None else None,
                }
    order = [one.name for one in named]
    return MethodRuns(items, {name: played[name] for name in order}, {n: costs[n] for n in order})


def _groups(named: Sequence[Contender], *, apart: bool) -> list[list[Contender]]:
    """Those that one back-end answers together; each by itself where they are to be apart."""
    groups: dict[object, list[Contender]] = {}
    for one in named:
        groups.setdefault(one.name if apart else one.request, []).append(one)
    return list(groups.values())


def _chat(request: GenerateRequest, journal: Journal) -> Chat:
    require_settings(request)
    opened: list[Chat] = []

    def first_asked(conversations: Sequence[Sequence[Message]]) -> Any:
        if not opened:
            opened.append(open_speaker_of(request)(request.seed))
        return opened[0](conversations)

    return kept(first_asked, journal, identity_of(request))


def _reply_lines(found: MethodRuns) -> list[str]:
    """Lines of the schema `replies`; an empty reply is left out there."""
    lines = []
    for at, item in enumerate(found.items):
        said = {name: played[at].outcome.reply for name, played in found.played.items()}
        replies = {name: text for name, text in said.items() if text.strip()}
        if replies:
            row = {
                "id": item.id,
                "group": item.group,
                "messages": list(map(message_row, item.messages)),
                "replies": replies,
            }
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return lines


def _trace_lines(found: MethodRuns) -> list[str]:
    lines = []
    for name, played in found.played.items():
        for item, one in zip(found.items, played, strict=True):
            row = {"id": item.id, "method": name, **one._asdict(), **one.outcome._asdict()}
            del row["outcome"]
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return lines
