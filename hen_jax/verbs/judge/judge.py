"""`hen judge`: replies graded, compared or ranked by a language model, with what tells how far to
trust it."""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hen_jax.core.checksums import file_sha256, text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.journal import Journal, open_journal
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.data.judged import Judged, read_judged
from hen_jax.evaluation.judge_asking import (
    JUDGE_JOURNAL,
    JudgeCall,
    JudgeIdentity,
    ask_all,
    begun_reply,
    call_key,
)
from hen_jax.evaluation.judge_probes import probes
from hen_jax.evaluation.judge_prompts import (
    BEGINNINGS,
    Mode,
    judge_prompt,
    nonce_policy,
    with_nonce,
)
from hen_jax.evaluation.judge_questions import (
    Answer,
    Question,
    against_own,
    injections,
    parsed,
    probed_items,
    questions_of,
    worth,
)
from hen_jax.evaluation.judge_report import parse_counts, said_of_replies
from hen_jax.evaluation.rubrics import Rubric, load_rubric
from hen_jax.evaluation.verdicts import FAILURES
from hen_jax.runs.chats import Speaker, back_end, open_speaker, revision
from hen_jax.text.conversation import Message, Reply, message_row
from hen_jax.text.replay import recorded
from hen_jax.verbs.judge.settings import Judging
from hen_jax.verbs.judge.table import judge_table

BY_CONTEXT = "by_context"
"""The rubric of each item's own context."""

CALLS, RESULTS, VERDICTS, TABLE = "calls.jsonl", "results.json", "verdicts.jsonl", "table.md"


def judge(judging: Judging) -> dict[str, Any]:
    """Asks the judge what was not asked before, writes the verdicts and prints what they say.

    `calls.jsonl` in `out` holds every reply of the judge as it came: a run that was killed goes on
    there, and one that is given again asks nothing.

    Raises:
      InputError: bad input, a rubric that is none, a judge that does not answer (what came is
        kept), or one none of whose replies holds a verdict.
    """
    require_no_link(judging.out)
    paths = [judging.out / name for name in (RESULTS, VERDICTS, TABLE)]
    require_ours(*paths)
    items = read_judged(judging.input, judging.schema, judging.columns)
    rubric_of = _rubrics(judging, items)
    questions = questions_of(items, judging.mode, judging.repeats, judging.seed)
    identity = _identity(judging)
    speaker = _speaker(judging)
    with open_journal(judging.out / CALLS, JUDGE_JOURNAL) as journal:
        asking = _Asking(judging, identity, speaker, journal, rubric_of)
        answers = asking.ask(questions)
        _require_verdicts(answers, judging)
        probed = probed_items(items, judging.probes, judging.seed)
        answers += asking.ask(_probe_questions(judging, questions, probed, rubric_of, asking))
    result = _result(judging, identity, items, answers, rubric_of)
    with output_files(*paths) as (results, verdicts, table):
        write_json(results, result)
        lines = (_line(answer, judging.mode) for answer in answers)
        verdicts.write_text("".join(lines), encoding="utf-8")
        table.write_text(judge_table(result), encoding="utf-8")
    print(judge_table(result), end="")
    return result


@dataclasses.dataclass(frozen=True)
class _Asking:
    """What every round of questions needs."""

    judging: Judging
    identity: JudgeIdentity
    speaker: Speaker
    journal: Journal
    rubric_of: Callable[[Judged], Rubric]

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        judging, asks = self.judging, []
        for question in questions:
            rubric, item = self.rubric_of(question.item), question.item
            texts = [item.replies[player] for player in question.shown]
            by_dimension = judging.by_dimension
            text = judge_prompt(judging.mode, rubric, item.prompt, texts, by_dimension=by_dimension)
            key = call_key(self.identity, text, question.order, question.repeat)
            named = f"{question.order} {question.repeat} {text}"  # whoever judges, as a replay does
            asks.append(JudgeCall(key, len(text), _asked(text, judging, named)))
        replies = self.reply(asks)
        if judging.begin:
            replies = [begun_reply(BEGINNINGS[judging.mode], reply) for reply in replies]
        return [
            Answer(question, reply, self.verdict(question, reply))
            for question, reply in zip(questions, replies, strict=True)
        ]

    def verdict(self, question: Question, reply: Reply) -> Any:
        rubric = self.rubric_of(question.item)
        return parsed(question, reply, self.judging.mode, rubric, self.judging.by_dimension)

    def own_replies(self, items: Sequence[Judged]) -> dict[str, str]:
        """What the judge itself says to each item's prompt, where it says anything."""
        asks = []
        for item in items:
            text = json.dumps([message_row(one) for one in item.prompt], sort_keys=True)
            key = call_key(self.identity, f"own reply {text}", 0, 0)
            asks.append(JudgeCall(key, len(text), _given(item)))
        replies = self.reply(asks)
        said = zip(items, replies, strict=True)
        return {item.id: reply.text.strip() for item, reply in said if reply.text.strip()}

    def reply(self, asks: Sequence[JudgeCall]) -> list[Reply]:
        judging = self.judging
        is_model = back_end(judging.backend).kind == "model"
        chunk = judging.batch_size if is_model else 4 * judging.at_once
        told = _progress(judging.out)
        found = ask_all(asks, self.speaker, self.journal, chunk=chunk, seed=judging.seed, told=told)
        return [found[ask.key] for ask in asks]


def _speaker(judging: Judging) -> Speaker:
    speaker, record = open_speaker(judging.backend, judging.answering()), judging.record
    if record is None:
        return speaker
    record.parent.mkdir(parents=True, exist_ok=True)
    return lambda seed: recorded(speaker(seed), record)


def _asked(text: str, judging: Judging, named: str) -> Callable[[], Any]:
    begun = (Message("assistant", BEGINNINGS[judging.mode]),) if judging.begin else ()
    return lambda: (*with_nonce(text, judging.nonce_seed, named), *begun)


def _given(item: Judged) -> Callable[[], Any]:
    return lambda: item.prompt


def _progress(out: Path) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{out}: {done} of {total} calls", end="", file=sys.stderr, flush=True)

    return told


def _rubrics(judging: Judging, items: Sequence[Judged]) -> Callable[[Judged], Rubric]:
    """The rubric of each item, all of them read before anything is asked."""
    if judging.rubric != BY_CONTEXT:
        one = load_rubric(judging.rubric, judging.language)
        return lambda item: one
    for item in items:
        if item.context is None:
            raise InputError(
                f"record {item.id}: no context, by which --rubric {BY_CONTEXT} goes; name a rubric"
            )
    contexts = {str(item.context) for item in items}
    rubrics = {context: load_rubric(context, judging.language) for context in contexts}
    return lambda item: rubrics[str(item.context)]


def _identity(judging: Judging) -> JudgeIdentity:
    names = ("max_new_tokens", "temperature", "top_p", "seed", "dtype", "begin")
    return JudgeIdentity(
        judging.backend if judging.adapter is None else f"{judging.backend} + {judging.adapter}",
        revision(judging.backend, judging.adapter),
        {name: vars(judging)[name] for name in names},
        nonce_policy(judging.nonce_seed),
    )


def _probe_questions(
    judging: Judging,
    questions: Sequence[Question],
    probed: Sequence[Judged],
    rubric_of: Callable[[Judged], Rubric],
    asking: _Asking,
) -> list[Question]:
    """Those of injection and of self-preference, about the probed items."""
    chosen = {item.id for item in probed}
    about = [question for question in questions if question.item.id in chosen]
    injected = injections(about, rubric_of, judging.mode, judging.seed)
    own = asking.own_replies(probed)
    return injected + against_own(probed, own, judging.mode, judging.seed)


def _require_verdicts(answers: Sequence[Answer], judging: Judging) -> None:
    counts = parse_counts(answers)
    if not counts["parsed"]:
        why = ", ".join(
            f"{number} {kind} ({FAILURES[kind]})" for kind, number in counts["failures"].items()
        )
        raise InputError(
            f"{judging.backend} gave no verdict to any of {counts['questions']} questions: {why}; "
            f"its first reply begins {answers[0].reply.text[:60]!r}, all are in "
            f"{judging.out / CALLS}; take another judge"
        )


def _result(
    judging: Judging,
    identity: JudgeIdentity,
    items: Sequence[Judged],
    answers: Sequence[Answer],
    rubric_of: Callable[[Judged], Rubric],
) -> dict[str, Any]:
    main = [answer for answer in answers if answer.question.probe == "main"]
    used = {(rubric := rubric_of(item)).name: rubric for item in items}
    return {
        "judge": identity._asdict(),
        "mode": judging.mode,
        "rubrics": {
            name: {
                "language": rubric.language,
                "scale": [rubric.low, rubric.high],
                "sha256": text_sha256(json.dumps(dataclasses.asdict(rubric), sort_keys=True)),
            }
            for name, rubric in sorted(used.items())
        },
        "input": {"file": str(judging.input), "sha256": file_sha256(judging.input)}
        if judging.input.is_file()
        else {"file": str(judging.input)},
        "items": len(items),
        "groups": len({item.group for item in items}),
        "repeats": judging.repeats,
        "verdicts": parse_counts(main),
        **said_of_replies(main, judging.mode),
        "probes": probes(answers, judging.mode, lambda item: rubric_of(item).high),
    }


def _line(answer: Answer, mode: Mode) -> str:
    question, reply, found = answer
    row = {
        "id": question.item.id,
        "probe": question.probe,
        "shown": list(question.shown),
        "order": question.order,
        "repeat": question.repeat,
        "worth": worth(answer, mode),
        "failure": found.failure,
        "reply": reply.text.encode("utf-8", "replace").decode(),
    }
    if mode == "pointwise" and found.failure is None:
        row["dimensions"] = found.verdict.dimensions
    return json.dumps(row, ensure_ascii=False) + "\n"
